"""How long a run's responses were, by role, for the simulated cluster of schedules.py.

    azr-nemo train recipe=tiny-1n0g-megatron warmup.steps=100 warmup.batch_size=16 warmup.programs=150 'data.seed_files=[tests/data/seeds.jsonl]' \\
      data.seed_factor=1 selfplay.steps=4 executor.wall_s=60 eval.items=2 run_dir=runs/lengths
    python benchmarks/response_lengths.py runs/lengths

The second one writes response_lengths.json anew.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from azr_nemo.observe.rollout_log import read_rollouts
from azr_nemo.runs.checkpoints import Checkpoints
from azr_nemo.settings.compose import from_yaml
from azr_nemo.tasks.task import Role

FILE = Path(__file__).with_suffix(".json")
QUANTILES = 24


def record(run_dir: Path) -> dict[str, Any]:
    """Evenly spaced quantiles, from the shortest to the longest, of the lengths of all proposals and all answers, as shares of the longest allowed."""
    checkpoint = Checkpoints(run_dir, keep=1).find("auto")
    assert checkpoint, f"{run_dir} has no checkpoint"
    config = from_yaml(checkpoint.path / "config.yaml")
    lengths: dict[str, list[int]] = {role.value: [] for role in Role}
    for rollout in read_rollouts(run_dir):
        if rollout["phase"] in lengths:  # estimates are answers too, but of new tasks alone
            lengths[rollout["phase"]].append(rollout["response_tokens"])
    limits = {Role.PROPOSE: config.rollout.max_propose_tokens, Role.SOLVE: config.rollout.max_solve_tokens}
    shares = {
        role.value: [round(sorted(found)[round(k * (len(found) - 1) / (QUANTILES - 1))] / limits[role], 3) for k in range(QUANTILES)]
        for role in Role
        if (found := lengths[role.value])
    }
    return {"recipe": config.recipe, "steps": checkpoint.step, "responses": {name: len(found) for name, found in lengths.items()}, **shares}


def recorded() -> dict[Role, tuple[float, ...]]:
    """The shares of the latest record."""
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return {role: tuple(stored[role.value]) for role in Role}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    FILE.write_text(json.dumps(record(parser.parse_args().run_dir), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
