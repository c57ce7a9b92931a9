"""A checkpoint as something that answers: tokenizer, rollout engine, weights."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.conversion.run_checkpoint import open_checkpoint
from azr_nemo.errors import UserError
from azr_nemo.evaluation.eval_settings import EvalSettings
from azr_nemo.megatron.huggingface import open_hf, read_config
from azr_nemo.megatron.platform import choose_dtype, choose_platform
from azr_nemo.models import Stage, resolve_model
from azr_nemo.rollout import make_rollout
from azr_nemo.rollout.engine import Sample, SampleRequest
from azr_nemo.rollout.tokenizer import Text
from azr_nemo.runs.checkpoints import Checkpoints
from azr_nemo.settings.schema import ModelConfig, RolloutConfig

SAMPLE_BYTES = 1 << 16
LONGEST_RESPONSE = 16_384  # tokens, of any suite's own limit
# Beside the model's own end tokens, as the original stops its evaluations.
STOP_WORDS = ("</s>", "<|im_end|>", "<|endoftext|>")


class Model:
    """A loaded checkpoint. Raises UserError when the path holds none, when it lacks a tokenizer, or when its weights do not fit."""

    def __init__(self, settings: EvalSettings, log: Path | None = None, note: Callable[[str], None] = lambda text: None):
        """log, note: the file that a rollout server writes, and what hears how its start goes."""
        path = find_checkpoint(settings.checkpoint)
        self.path = path
        with _weights(path) as (config, stream, model_dir):
            self.text = Text(model_dir, config)
            platform = choose_platform(settings.platform)
            self.context = int(getattr(config, "max_position_embeddings", 0) or 1 << 20)  # tokens of prompt and response together
            self.dtype = choose_dtype(settings.dtype, platform)
            longest = min(self.context, settings.max_prompt_tokens + (settings.max_tokens or LONGEST_RESPONSE))
            rollout = RolloutConfig(
                name=settings.rollout, max_batch_rows=settings.max_batch_rows, max_prompt_tokens=longest - 1, max_propose_tokens=1,
                max_solve_tokens=1, vllm=settings.vllm,
            )  # fmt: skip
            vocabulary = self.text.tokenizer.get_vocab()
            ends = sorted({*self.text.end_ids, *(vocabulary[word] for word in STOP_WORDS if word in vocabulary)})
            self.rollout = make_rollout(rollout, config, self.dtype, ends, platform.device, self.text.decode, log, note)
            self.rollout.refit((name, tensor.to(self.dtype)) for name, tensor in stream)

    def close(self) -> None:
        """Ends what its rollout engine started."""
        self.rollout.close()

    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None]) -> None:
        """Samples every request; on_sample(i, k, sample) is told of sample k of request i as it ends."""
        told: set[tuple[int, int]] = set()

        def arrived(index: int, k: int, sample: Sample) -> None:
            told.add((index, k))
            on_sample(index, k, sample)

        for index, group in enumerate(self.rollout.generate(requests, arrived)):
            for k, sample in enumerate(group):
                if (index, k) not in told:
                    on_sample(index, k, sample)


def find_checkpoint(name: str, stage: Stage = lambda text: nullcontext()) -> Path:
    """The directory that holds the model: the path itself, a run's latest checkpoint, or an `embedded:` model's. Raises UserError."""
    path = resolve_model(ModelConfig(path=name), stage=stage) if name.startswith(("embedded:", "scratch:")) else Path(name)
    if (path / "config.json").is_file() or (path / "model").is_dir():
        return path
    if (path / "checkpoints").is_dir() and (found := Checkpoints(path, keep=1).find("auto")):
        return found.path
    raise UserError(
        f"checkpoint={path} holds no model: give a Hugging Face directory, a run's checkpoint (RUN/checkpoints/step_...) or a run directory"
    )


@contextmanager
def _weights(path: Path) -> Iterator[tuple[PretrainedConfig, Iterator[tuple[str, Tensor]], Path]]:
    """Configuration, weight stream under Hugging Face names, and the directory of the tokenizer."""
    if (path / "config.json").is_file():
        config = read_config(path)
        with open_hf(path, config) as stream:
            yield config, stream, path
    else:
        with open_checkpoint(path) as (config, stream):
            yield config, stream, path / "model"


def fingerprint(path: Path) -> str:
    """Tells whether a checkpoint is still the one that was asked: a hash of its files' names and sizes and of samples of their bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)}:{size}".encode())
        with open(file, "rb") as opened:
            for place in (0, size // 3, 2 * size // 3, max(0, size - SAMPLE_BYTES)):
                opened.seek(place)
                digest.update(opened.read(SAMPLE_BYTES))
    return digest.hexdigest()
