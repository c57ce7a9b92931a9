"""Whether a run's memory is flat: trains a recipe and prints the resident memory of every step, the highest of each phase.

    python benchmarks/memory.py --steps 6                                              # the default recipe
    python benchmarks/memory.py recipe=qwen2_5_coder_0_5b-1n0g-megatron --steps 24
    python benchmarks/memory.py --run runs/mine                                        # of a run that is there, also while it goes on

The first two steps fill what the later ones use again; from the third on the highest may be no more than a tenth above the lowest. The exit code says
whether it is. With more rows to learn from a step needs more: its tokens stand beside.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from step_breakdown import measured

from azr_nemo.json_lines import objects

SETTLED = 3  # the first step that is compared
ALLOWED = 0.10
PHASES = ("propose", "estimate", "solve", "update")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for `azr-nemo train`")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--run", type=Path, help="a run directory that is read instead")
    args = parser.parse_args()
    if args.run:
        rows = [row for _, row in objects(args.run / "metrics.jsonl") if row["step"] > 0]
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = measured(args.overrides, args.steps, Path(folder) / "run")
    print(table(rows))
    grown = spread(rows)
    print(f"steps {SETTLED} to {len(rows)}: the highest is {grown:.1%} above the lowest; allowed: {ALLOWED:.0%}")
    return int(grown > ALLOWED)


def table(rows: list[dict[str, float]]) -> str:
    """GiB, a line a step."""
    lines = [f"{'step':>5}" + "".join(f"{phase:>10}" for phase in PHASES) + f"{'peak':>10}{'tokens':>10}"]
    for row in rows:
        cells = [row.get(f"memory/{phase}_rss_gib", 0.0) for phase in PHASES] + [peak(row)]
        lines.append(f"{int(row['step']):>5}" + "".join(f"{cell:>10.2f}" for cell in cells) + f"{row.get('train/tokens', 0):>10.0f}")
    return "\n".join(lines)


def spread(rows: list[dict[str, float]]) -> float:
    """By what share the highest peak of the settled steps lies above their lowest."""
    peaks = [peak(row) for row in rows if row["step"] >= SETTLED]
    return max(peaks) / min(peaks) - 1 if peaks else 0.0


def peak(row: dict[str, float]) -> float:
    """The step's own: `memory/peak_rss_gib` is the run's."""
    return max(row.get(f"memory/{phase}_rss_gib", 0.0) for phase in PHASES)


if __name__ == "__main__":
    sys.exit(main())
