"""Models between formats, one tensor at a time: Hugging Face directories, this project's checkpoints, NeMo's files (docs/conversion.md)."""
