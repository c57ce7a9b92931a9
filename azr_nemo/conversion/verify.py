"""Whether what was written is the model that was read: every tensor, and the logits of transformers beside Megatron's."""

import gc

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from azr_nemo.conversion.hugging_face import Progress
from azr_nemo.conversion.source import Source
from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.megatron.batches import MicroBatch
from azr_nemo.megatron.model import build_model
from azr_nemo.megatron.platform import choose_platform
from azr_nemo.megatron.weight_stream import import_weights
from azr_nemo.settings.schema import EngineConfig

TOKENS = 32
LOGITS = 2  # models whose logits are computed
TOLERANCE = 1e-4  # of the largest logit; both compute in float32


def verify(source: Source, written: Source, progress: Progress = lambda tensors: None) -> str:
    """What was compared, and the largest difference. progress: told of each tensor, and of each of the LOGITS models that were run.

    One model is in memory at a time, in float32. Raises UserError on any mismatch.
    """
    count = _compare_tensors(source, written, progress)
    # transformers reads the side that is a Hugging Face directory, so that the other one's names, layout and settings are Megatron's to prove.
    reference, other = (written, source) if written.kind == "hf" else (source, written)
    tokens = (torch.arange(TOKENS) * 7919 + 13) % source.architecture.vocab
    theirs = _logits_of_transformers(reference, tokens)
    progress(1)
    gc.collect()
    ours = _logits_of_megatron(other, tokens)
    progress(1)
    difference, largest = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not difference <= TOLERANCE * max(1.0, largest):  # also when it is not a number
        raise UserError(
            f"the logits of {written.path.name} and {source.path} differ by {difference:.3g} on {TOKENS} tokens: expected at most "
            f"{TOLERANCE * max(1.0, largest):.3g}; nothing was kept"
        )
    return (
        f"verified: {count} tensors equal in name, shape, dtype ({str(source.dtype).removeprefix('torch.')}) and every value; logits of "
        f"transformers and Megatron on {TOKENS} tokens in float32 differ by at most {difference:.2g} (largest logit {largest:.3g})"
    )


def _compare_tensors(source: Source, written: Source, progress: Progress) -> int:
    names = [list(piece.names) for piece in source.pieces], [list(piece.names) for piece in written.pieces]
    if names[0] != names[1] or source.dtype != written.dtype:
        raise UserError(f"{written.path.name} does not hold the tensors of {source.path}, or not in {source.dtype}; nothing was kept")
    count = 0
    for piece, again in zip(source.pieces, written.pieces, strict=True):
        for name, before, after in zip(piece.names, source.read(piece), written.read(again), strict=True):
            # Bits are compared: a NaN is equal to itself, and zero is not equal to minus zero.
            if before.shape != after.shape or not torch.equal(_bits(before), _bits(after)):
                raise UserError(f"the tensor {name} of {written.path.name} is not that of {source.path}; nothing was kept")
            count += 1
            progress(1)
    return count


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32}[tensor.dtype.itemsize])


@torch.no_grad()
def _logits_of_transformers(source: Source, tokens: Tensor) -> Tensor:
    if source.kind == "hf":
        model = AutoModelForCausalLM.from_pretrained(source.path, dtype=torch.float32, local_files_only=True, trust_remote_code=False)
    else:
        model = AutoModelForCausalLM.from_config(source.config, dtype=torch.float32)
        parameters = dict(model.named_parameters())
        for name, tensor in source.stream():
            parameters.pop(name).copy_(tensor)
        if parameters:
            raise UserError(f"{source.path} lacks the model's tensor {next(iter(parameters))}; nothing was kept")
    return model.eval()(tokens[None]).logits[0]


@torch.no_grad()
def _logits_of_megatron(source: Source, tokens: Tensor) -> Tensor:
    platform = choose_platform("cpu")
    distributed.start(platform, 1, 1)
    model = build_model(source.config, platform, EngineConfig(), torch.float32)
    import_weights(model, source.config, source.get)
    row = MicroBatch(tokens[None], tokens[None], torch.ones(1, len(tokens), dtype=torch.bool), ((0, len(tokens)),), tokens[:0], tokens[:0])
    with platform.scope():
        logits = model.eval()(row.tokens, row.positions(), None, packed_seq_params=row.packed(platform.device))
    return logits[0, :, : source.architecture.vocab]
