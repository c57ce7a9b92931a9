"""How far did runs move the weights, and how much of the way do they share? What runs of other seeds have in common is what the recipe teaches; the
rest is whose tasks and samples they were.

    python benchmarks/displacement.py --base embedded:qwen2_5_coder_0_5b runs/zero-data/selfplay-1 runs/zero-data/selfplay-2

Of each run's latest checkpoint, its embeddings left out: the root mean square of the change since the base, by the optimizer's float32 weights and by
those that sample, which are rounded to bfloat16, and the cosine of the two; then the cosine of every two runs' changes, in float32. Reads one tensor
at a time.
"""

import argparse
from contextlib import ExitStack
from itertools import combinations_with_replacement
from pathlib import Path

import torch
from torch import Tensor

from azr_nemo.conversion.hugging_face import open_hf_source
from azr_nemo.conversion.pieces import EMBEDDING, HEAD
from azr_nemo.conversion.run_checkpoint import open_checkpoint_source, open_slices
from azr_nemo.conversion.source import megatron_loader
from azr_nemo.errors import UserError
from azr_nemo.evaluation.sampler import find_checkpoint

MASTERS = "optimizer.state.fp32_param."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="runs or checkpoints")
    parser.add_argument("--base", required=True, help="what they began with: embedded:NAME or a directory")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(table([str(run) for run in args.runs], *products(find_checkpoint(args.base), [find_checkpoint(str(run)) for run in args.runs])))


def products(base: Path, checkpoints: list[Path]) -> tuple[Tensor, int]:
    """Scalar products of all changes of the weights since `base`, [2n, 2n] of n checkpoints: first those in float32, then those as they are stored; and
    of how many numbers. Raises UserError for a checkpoint whose optimizer keeps no float32 weights."""
    found, numbers = torch.zeros(2 * len(checkpoints), 2 * len(checkpoints), dtype=torch.float64), 0
    with ExitStack() as stack:
        before = stack.enter_context(open_hf_source(base))
        loaders = []
        for path in checkpoints:
            tensors = open_slices(path, stack)
            if not any(key.startswith(MASTERS) for key in tensors):
                raise UserError(
                    f"{path} has no float32 weights beside those that it trains: only a run in bfloat16 keeps them, in its checkpoints"
                )
            loaders.append(megatron_loader(tensors, MASTERS, path))
        loaders += [stack.enter_context(open_checkpoint_source(path)).load for path in checkpoints]
        for piece in before.pieces:
            if piece.key in (EMBEDDING, HEAD):
                continue
            old = flat(before.load(piece))
            changes = [flat(load(piece)) - old for load in loaders]
            for i, j in combinations_with_replacement(range(len(changes)), 2):
                found[i, j] += float(changes[i] @ changes[j])
            numbers += old.numel()
    return found + found.T - found.diag().diag(), numbers


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.float().flatten() for tensor in tensors])


def table(names: list[str], found: Tensor, numbers: int) -> str:
    """Markdown."""
    n, norms = len(names), found.diag().sqrt()
    cosines = found / norms[:, None] / norms[None]
    lines = ["| | rms of the change, float32 | as stored | cosine of the two |", "|---|---|---|---|"]
    for i, name in enumerate(names):
        rms, stored = (float(norms[k]) / numbers**0.5 for k in (i, n + i))
        lines.append(f"| {name} | {rms:.2e} | {stored:.2e} | {cosines[i, n + i]:.2f} |")
    if n == 1:
        return "\n".join(lines)
    lines += ["", "| cosine, float32 | " + " | ".join(names[1:]) + " |", "|---" * n + "|"]
    for i, name in enumerate(names[:-1]):
        lines.append(f"| {name} | " + " | ".join(f"{cosines[i, j]:.2f}" if j > i else "" for j in range(1, n)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
