"""Whole runs of a recipe on this machine's cores, a schedule and a placement at a time: how long their steps take.

    python benchmarks/schedules_here.py                          # the tiny recipe, 2 and 4 ranks of one thread
    python benchmarks/schedules_here.py --ranks 2 --rounds 3 selfplay.batch_size=64

Every arm draws the solver's tasks from earlier steps, which `merged` and `pipelined` need, so that all of them draw as much of the same kinds. Arms take
turns, --rounds times, and the first step is left out: in a pipelined run it has a batch of its own, and in a split one nothing is beside it. A cluster's
tails are not here: answers are short, and ranks share the cores. `schedules.py` is the same on a pretended cluster.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from azr_nemo.json_lines import objects

SPLIT = ["placement=split", "selfplay.staleness=1"]
ARMS: dict[str, list[str]] = {
    "sequential": [],
    "merged": ["selfplay.schedule=merged"],
    "pipelined": ["selfplay.schedule=pipelined"],
    "sequential, split": SPLIT,
    "pipelined, split": ["selfplay.schedule=pipelined", *SPLIT],
}
SETTINGS = ["engine.threads=1", "selfplay.solve_from=previous_mixed", "eval.items=0", "checkpoint.every=1000"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of every arm, as for `azr-nemo train`")
    parser.add_argument("--recipe", default="tiny-1n0g-megatron")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_intermixed_args()
    seconds: dict[tuple[int, str], list[float]] = {}
    tokens: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for ranks in args.ranks:
                for arm, settings in ARMS.items():
                    own = [f"cluster.sampler_ranks={ranks // 2}"] if "placement=split" in settings else []
                    words = [f"recipe={args.recipe}", *SETTINGS, *settings, *own, f"selfplay.steps={args.steps}", *args.overrides]
                    rows = measured(words, ranks, Path(folder) / f"{turn}-{ranks}-{arm.replace(', ', '-')}")
                    seconds.setdefault((ranks, arm), []).append(statistics.median(row["step/seconds"] for row in rows))
                    tokens.setdefault((ranks, arm), []).append(sum(map(drawn, rows)) / sum(row["step/seconds"] for row in rows))
    print(f"\n{os.cpu_count()} cores; median step of each of {args.rounds} runs\n")
    print("| ranks | schedule | s a step | tokens/s | over sequential |")
    print("|---|---|---|---|---|")
    for (ranks, arm), rates in tokens.items():
        steps = ", ".join(f"{value:.2f}" for value in seconds[ranks, arm])
        ratio = statistics.mean(rates) / statistics.mean(tokens[ranks, "sequential"])
        print(f"| {ranks} | {arm} | {steps} | {statistics.mean(rates):.0f} | {ratio:.2f}x |")


def measured(words: list[str], ranks: int, run_dir: Path) -> list[dict[str, float]]:
    """The metrics of each step of a fresh run but the first."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "azr_nemo"]
    command = [sys.executable, *launcher, "train", *words, f"run_dir={run_dir}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"the run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [row for _, row in objects(run_dir / "metrics.jsonl") if row["step"] > 1]


def drawn(row: dict[str, float]) -> float:
    """Response tokens of a step, of all its phases: by the rate that its metrics have and the seconds that this counts."""
    generating = sum(row.get(f"time/{phase}_s", 0.0) for phase in ("propose", "estimate", "solve", "sample"))
    return row["throughput/generated_tokens_per_s"] * generating


if __name__ == "__main__":
    main()
