"""All recipes for GPUs on a pretended one: planned and pretended peak, blocking reads, what a refit sends, what a snapshot takes, as a table.

    python benchmarks/pretended_recipes.py                            # two layers of each pipeline stage, at full width
    python benchmarks/pretended_recipes.py --layers 0                 # all layers: a minute a recipe
    python benchmarks/pretended_recipes.py --keep now.jsonl           # then, with another version: --before now.jsonl

No GPU, no weights, no kernel: tests/pretended_gpu says what that proves and what not. GB are 10^9 bytes of the rank that is named. Adapters have no
pretended peak: torch's flash attention, which their layers have, is not part of the pretence, and all scores would be kept.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.compose import recipes

JOB = Path(__file__).parent.parent / "tests" / "pretended_gpu" / "pretended_rank.py"
Line = dict[str, Any]
HEAD = ("recipe, stage", "planned", "pretended", "with the sampler", "card", "reads of a micro-batch", "of a step", "refit: gathers", "broadcasts",
        "GB over the pipeline", "snapshot: GPU", "host")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2, help="of each pipeline stage; 0: all")
    parser.add_argument("--keep", type=Path, help="a file for what was found, a line of JSON each")
    parser.add_argument("--before", type=Path, help="such a file of another version: its figures stand before an arrow")
    arguments = parser.parse_args()
    lines = measure(arguments.layers)
    if arguments.keep:
        arguments.keep.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    before = {}
    if arguments.before:
        earlier = (json.loads(line) for line in arguments.before.read_text(encoding="utf-8").splitlines())
        before = {place(line): line for line in earlier}
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for line in lines:
        print(
            "| " + " | ".join([place(line), *compared(cells(line), cells(before[place(line)]) if place(line) in before else None)]) + " |"
        )


def places() -> list[str]:
    """RECIPE:STAGE, first and last stage of each."""
    names = [name for name in recipes() if name.endswith(("-megatron", "-lora")) and "-1n0g-" not in name]
    return [f"{name}:{stage}" for name in names for stage in sorted({0, load_settings([f"recipe={name}"]).engine.pipeline_parallel - 1})]


def measure(layers: int) -> list[Line]:
    words = [word for each in places() for word in ("--", each)]
    environment = {**os.environ, "PYTHONPATH": str(JOB.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", JOB, str(layers), *words], stdout=subprocess.PIPE, text=True, env=environment, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for line in lines:
        if "error" in line:
            raise SystemExit(line["error"])
    return lines


def place(line: Line) -> str:
    return f"{line['recipe']}, {line['stage']}"


def cells(line: Line) -> list[str]:
    planned, (few, many) = line["planned"], line["updates"]
    state = planned["weights"] + planned["gradients"] + planned["optimizer"]
    more = many["micro_batches"] - few["micro_batches"]
    each = (sum(many["reads"].values()) - sum(few["reads"].values())) / more
    refit = line["refit"]
    gathers = sum(count for name, count in refit["collectives"].items() if "gather" in name)
    sampler = planned["replica"] + planned["cache"]
    peaks = ["–", "–"] if line["recipe"].endswith("-lora") else [gb(many["peak"]), gb(many["peak"] + sampler)]
    return [
        gb(state + planned["step"]), *peaks, gb(planned["capacity"]), f"{each:g}",
        f"{sum(many['reads'].values()) - each * many['micro_batches']:g}", str(gathers), str(refit["collectives"].get("broadcast_", 0)),
        gb(refit["sent"].get("broadcast_", 0)), gb(line["snapshot"]["peak"]), gb(line["snapshot"]["host"]),
    ]  # fmt: skip


def compared(now: list[str], before: list[str] | None) -> list[str]:
    if before is None:
        return now
    return [new if old == new else f"{old} → {new}" for old, new in zip(before, now, strict=True)]


def gb(count: float) -> str:
    return f"{count / 1e9:.2f}"


if __name__ == "__main__":
    main()
