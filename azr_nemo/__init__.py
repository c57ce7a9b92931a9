"""AZR-NeMo: Absolute Zero Reasoner (arXiv 2505.03335) as a Megatron training recipe."""

__version__ = "0.1.0"
