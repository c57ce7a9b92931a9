"""The tokenizer of a Hugging Face directory: prompts to ids, ids to responses, and which ids end a response."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig, PretrainedConfig

from azr_nemo.errors import UserError
from azr_nemo.rollout.encoding import Encoder
from azr_nemo.tasks.marked import Span, spans_of


class Text:
    """Encodes and decodes with the model's own conventions."""

    def __init__(self, model_dir: Path, config: PretrainedConfig) -> None:
        """Raises UserError when the directory has no usable tokenizer."""
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{model_dir} has no tokenizer that can be read ({error}): put its tokenizer.json there") from error
        self.end_ids = _end_ids(model_dir, config, self.tokenizer.eos_token_id)
        self._encoder = Encoder(self.tokenizer)
        # Steps show the same prompts again: references and tasks of the buffer.
        self._encoded = lru_cache(maxsize=4096)(self._encode)

    def encode(self, text: str) -> list[int]:
        """Token ids, with the special tokens that this model puts around a text unless its template already has them."""
        return list(self._encoded(text, spans_of(text)))

    def _encode(self, text: str, spans: tuple[Span, ...]) -> tuple[int, ...]:
        return tuple(self._encoder.encode(text))  # spans: equal texts that are marked otherwise are other keys

    def encode_response(self, text: str) -> list[int]:
        """Token ids of an ideal response: no special tokens around it but the end token."""
        return self._encoder.encode_response(text)

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
