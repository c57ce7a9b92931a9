"""benchmarks/memory.py says of a run whether its memory is flat from the third step on."""

import json
import subprocess
import sys
from pathlib import Path

import process_trees
import pytest

from azr_nemo.settings.compose import ROOT


def said(run: Path, updates: list[float]) -> subprocess.CompletedProcess[str]:
    rows = [
        {"step": step, "memory/solve_rss_gib": 4.0, "memory/update_rss_gib": peak, "memory/peak_rss_gib": 99.0, "train/tokens": 10 * step}
        for step, peak in enumerate(updates)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, ROOT / "benchmarks" / "memory.py", "--run", run]
    return process_trees.run(command, timeout=60)


@pytest.mark.parametrize(
    ("updates", "code", "grown"),
    [
        ([50.0, 20.0, 12.0, 8.0, 8.4, 8.1], 0, "5.0%"),  # before the first step, and in the first two, it may be anything
        ([1.0, 1.0, 1.0, 8.0, 8.4, 9.6], 1, "20.0%"),
        ([1.0, 1.0, 1.0, 2.0, 3.0, 3.9], 0, "0.0%"),  # what sampling holds is the peak
    ],
)
def test_the_highest_step_is_compared_with_the_lowest_from_the_third_on(tmp_path, updates, code, grown):
    done = said(tmp_path, updates)
    assert done.returncode == code, done.stderr
    assert f"steps 3 to 5: the highest is {grown} above the lowest" in done.stdout
    assert len(done.stdout.splitlines()) == 1 + 5 + 1
