"""The tokenizer of a Hugging Face directory: prompts to ids, ids to responses, and which ids end a response."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig

from azr_nemo.errors import UserError


class Text:
    """Encodes and decodes with the model's own conventions."""

    def __init__(self, model_dir: Path, config: PretrainedConfig) -> None:
        """Raises UserError when the directory has no usable tokenizer."""
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{model_dir} has no tokenizer that can be read ({error}): put its tokenizer.json there") from error
        self.end_ids = _end_ids(model_dir, config, self.tokenizer.eos_token_id)
        # Steps show the same prompts again: references and tasks of the buffer.
        self._encoded = lru_cache(maxsize=4096)(self._encode)

    def encode(self, text: str) -> list[int]:
        """Token ids, with the special tokens that this model puts around a text unless the text already has them."""
        return list(self._encoded(text))

    def _encode(self, text: str) -> tuple[int, ...]:
        begin = self.tokenizer.bos_token
        return tuple(self.tokenizer(text, add_special_tokens=not (begin and text.startswith(begin)))["input_ids"])

    def encode_response(self, text: str) -> list[int]:
        """Token ids of an ideal response: no special tokens but the end token."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The response's text, without its end token and other special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _end_ids(model_dir: Path, config: PretrainedConfig, tokenizer_end: int | None) -> list[int]:
    """Every id that ends a response: the tokenizer's, the configuration's and the generation settings' (several, for chat models)."""
    settings = GenerationConfig.from_pretrained(model_dir) if (model_dir / "generation_config.json").is_file() else None
    found: set[int] = set()
    for ends in (tokenizer_end, getattr(config, "eos_token_id", None), settings and settings.eos_token_id):
        found.update(ends if isinstance(ends, list | tuple) else [ends] if ends is not None else [])
    if not found:
        raise UserError(f"{model_dir} names no end token: set eos_token_id in its config.json")
    return sorted(found)
