"""Programs that models and people really wrote run, and give what they gave before."""

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from azr_nemo.sandbox.executor import Limits, Request, Status

LIMITS = Limits(wall_s=20.0, cpu_s=20.0)
# Nearly every program of a seed file runs; some import what is not there, are random, return sets of text, or were never valid.
LEAST_OK = {
    "7b_coder_seed_io.jsonl": 0.9,
    "llama_64_seed_io.jsonl": 0.9,
    "7b_coder_code_f_seed_io.jsonl": 0.85,
    "llama_64_code_f_seed_io.jsonl": 0.85,
}


def rows(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_every_row_of_cruxeval_gives_its_stored_output(pool, shared_data):
    stored = rows(shared_data / "cruxeval_200.jsonl")
    results = pool.run(Request(row["code"], (row["input"],), LIMITS) for row in stored)
    wrong = [
        (row["id"], outcome)
        for row, (outcome,) in zip(stored, results, strict=True)
        if not outcome.ok or ast.literal_eval(outcome.value) != ast.literal_eval(row["output"])
    ]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LEAST_OK)
def test_every_program_of_the_seed_files_comes_to_an_outcome(pool, shared_data, name, capsys):
    stored = rows(shared_data / name)
    inputs = [tuple(row.get("inputs") or [row["input"]]) for row in stored]
    results = pool.run(Request(row["snippet"], texts, LIMITS, deterministic=True) for row, texts in zip(stored, inputs, strict=True))
    counts = Counter(outcome.status for outcomes in results for outcome in outcomes)
    same = different = 0
    for row, outcomes in zip(stored, results, strict=True):
        for outcome, text in zip(outcomes, row.get("outputs") or [row["output"]], strict=True):
            if outcome.ok:
                equal = outcome.value == text or _reads_as(text, outcome.value)
                same, different = same + equal, different + (not equal)
    with capsys.disabled():
        print(f"\n{name}: {dict(counts)}; of those ok {same} equal the stored output, {different} do not")
    total = sum(counts.values())
    assert [len(outcomes) for outcomes in results] == [len(texts) for texts in inputs]
    assert counts[Status.OK] >= LEAST_OK[name] * total
    assert counts[Status.TIMEOUT] + counts[Status.MEMORY] + counts[Status.CRASHED] <= 0.02 * total
    assert different <= 0.05 * counts[Status.OK]


def _reads_as(text: str, value: str) -> bool:
    try:
        return ast.literal_eval(text) == ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return False
