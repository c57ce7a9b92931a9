"""Where the seconds of a self-play step go: trains a recipe for a few steps and prints each phase's time and share.

    python benchmarks/step_breakdown.py                              # the default recipe, 3 steps, in a temporary run directory
    python benchmarks/step_breakdown.py recipe=tiny-1n0g-megatron --steps 10

Model time is sampling, the update and the refit. The rest is reading answers, the executor's results that generation did not hide, the
buffer, batching, logs.
Checkpoints, held-out evaluation and everything before the first step are left out: they are not part of a step.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from azr_nemo.json_lines import objects

MODEL = ("propose", "estimate", "solve", "update", "refit")
APART = ("save", "evaluate")
GOAL = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for `azr-nemo train`; the default recipe when none is named")
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(args.overrides, args.steps, Path(folder) / "run")
    phases = {name: statistics.mean(row.get(f"time/{name}_s", 0.0) for row in rows) for name in sorted(set().union(*map(named, rows)))}
    apart = sum(phases.pop(name, 0.0) for name in APART)
    total = sum(phases.values())
    print(f"\nmean of {len(rows)} steps, {total:.1f} s each (saving and evaluating, {apart:.1f} s, left out)")
    print(f"{'phase':<14} {'s/step':>8} {'share':>7} {'GiB':>6}")
    for name, seconds in sorted(phases.items(), key=lambda item: (item[0] not in MODEL, -item[1])):
        peak = max(row.get(f"memory/{name}_rss_gib", 0.0) for row in rows)
        print(f"{name:<14} {seconds:>8.2f} {seconds / total:>7.1%} {peak:>6.1f}")
    rest = 1 - sum(phases.get(name, 0.0) for name in MODEL) / total
    print(f"{'not model':<14} {rest * total:>8.2f} {rest:>7.1%}   goal: under {GOAL:.0%}: {'yes' if rest < GOAL else 'no'}")
    print(f"peak memory {max(row['memory/peak_rss_gib'] for row in rows):.1f} GiB, everything before the first step included")
    for name, unit in (("throughput/generated_tokens_per_s", "sampled"), ("throughput/trained_tokens_per_s", "trained response")):
        print(f"{statistics.mean(row[name] for row in rows):.0f} {unit} tokens/s")


def measured(overrides: list[str], steps: int, run_dir: Path) -> list[dict[str, float]]:
    """The metrics of each step of a fresh run. Its own output goes to the screen."""
    command = [sys.executable, "-m", "azr_nemo", "train", *overrides, f"run_dir={run_dir}", f"selfplay.steps={steps}"]
    if subprocess.run(command, check=False).returncode:
        sys.exit("the run failed, see above")
    rows = [row for _, row in objects(run_dir / "metrics.jsonl")]
    return [row for row in rows if row["step"] > 0]


def named(row: dict[str, float]) -> set[str]:
    return {key.removeprefix("time/").removesuffix("_s") for key in row if key.startswith("time/")}


if __name__ == "__main__":
    main()
