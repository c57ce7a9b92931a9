"""benchmarks/judges.py asks every model the same items, and sets each beside the best that an untuned one does."""

import importlib.util
import json
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from azr_nemo.settings.compose import ROOT

spec = importlib.util.spec_from_file_location("judges", ROOT / "benchmarks" / "judges.py")
assert spec is not None
assert spec.loader is not None
judges = importlib.util.module_from_spec(spec)
spec.loader.exec_module(judges)

RIGHT = {0: 2, 2: 3, "trained": 6}  # of 8 items


class Evaluations:
    """Answers in the place of `azr-nemo eval`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess:
        words = dict(word.split("=", 1) for word in command[4:])
        self.asked.append(words)
        out = Path(words["out"])
        out.mkdir(parents=True)
        right = RIGHT["trained" if "step" in words["out"] else int(words["shots"])]
        rows = [
            {"id": str(i), "sample": 0, "finished": True, "right": i < right, "reason": "right" if i < right else "wrong_value"}
            for i in range(8)
        ]
        (out / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        figures = {"pass@1": right / 8, "low": 0.0, "high": 1.0, "scores": {}, "pass@8": 0.5, "parts": {"without_echo": 0.25}}
        (out / "results.json").write_text(json.dumps({"suites": {"s": figures}}))
        return subprocess.CompletedProcess(command, 0)


def test_a_run_is_compared_with_the_untuned_model_and_with_its_best_examples(tmp_path, monkeypatch, capsys):
    base, run = tmp_path / "base", tmp_path / "run" / "checkpoints" / "step_000004"
    for folder in (base, run / "model"):
        folder.mkdir(parents=True)
    (base / "config.json").write_text("{}")
    evaluations = Evaluations()
    monkeypatch.setattr(judges.subprocess, "run", evaluations.run)
    args = Namespace(
        base=str(base), checkpoints=[run], style="code", suites=["s"], data=tmp_path, skip=3, limit=8, shots=[2], samples=0, max_tokens=64,
        out=tmp_path / "out",
    )  # fmt: skip
    judges.judge(args)
    said = capsys.readouterr().out
    assert [words["shots"] for words in evaluations.asked] == ["0", "2", "0"]
    assert {(words["skip"], words["limit"], words["style"], words["temperature"]) for words in evaluations.asked} == {
        ("3", "8", "code", "0.0")
    }
    assert "| untuned, 2 examples | 0.375 [0.000, 1.000], pass@8 0.500, without_echo 0.250 |" in said
    assert f"{run} minus untuned\n" in said
    assert f"{run} minus untuned, 2 examples\n" in said
    assert "| s | 0 | 0 | 8 | 3, 6 | +0.375 | +0.000 | +0.375 [" in said
    judges.judge(args)
    assert len(evaluations.asked) == 3  # what is finished is not asked again


def test_an_evaluation_that_fails_ends_it(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(judges.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 2))
    args = Namespace(
        base=str(tmp_path), checkpoints=[], style="code", suites=["s"], data=tmp_path, skip=0, limit=0, shots=[], samples=0, max_tokens=64,
        out=tmp_path / "out",
    )  # fmt: skip
    with pytest.raises(SystemExit, match="failed, see above"):
        judges.judge(args)
