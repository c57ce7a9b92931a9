"""`azr-nemo data prepare`, `eval` and `eval compare` as a user types them; an evaluation that is killed; benchmarks during training."""

import json
import signal
import time
from pathlib import Path

import pytest
from command_line import azr
from run_server import command, shared

ROWS = [
    {"id": f"sample_{k}", "code": f"def f(x):\n    return x * {k} + 1", "input": str(k), "output": str(k * k + 1)} for k in range(12)
]  # fmt: skip
TRAIN = [
    "train", "recipe=tiny-1n0g-megatron", "warmup.steps=0", "selfplay.batch_size=2", "selfplay.steps=2", "rollout.estimate_samples=2",
    "rollout.max_propose_tokens=24", "rollout.max_solve_tokens=16", "data.seed_factor=1", "checkpoint.every=1", "eval.items=2", "eval.every=1",
    "rollout.max_prompt_tokens=1000",
]  # fmt: skip
SEEDS = Path(__file__).parent.parent / "data" / "seeds.jsonl"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("public")
    (folder / "cruxeval.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    (folder / "execution_log.json").write_text('{"started": "today"}')
    ended = azr("data", "prepare", "--source", folder, "--to", folder / "prepared")
    assert ended.returncode == 1
    said = ended.stdout
    assert "execution_log.json is no file for lcb_execution" in " ".join(said.split())
    assert "cruxeval_output: 12 of 800 items from cruxeval.jsonl." in said
    assert "math500 is missing: " in said
    return folder / "prepared"


def words(data: Path, out: Path, *more: str) -> list[str]:
    return ["eval", "checkpoint=scratch:tiny", "suite=cruxeval", f"data={data}", f"out={out}", "max_tokens=48", "max_batch_rows=2", *more]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_evaluation_killed_in_the_middle_ends_with_the_results_of_one_that_was_not(data, tmp_path):
    said = command(*words(data, tmp_path / "whole"))
    assert "cruxeval_output" in said
    run = shared().start(words(data, tmp_path / "killed"))
    rows = tmp_path / "killed" / "cruxeval_input.jsonl"
    deadline = time.monotonic() + 800
    while not (rows.exists() and rows.read_text().count("\n") >= 3):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run.kill(signal.SIGKILL)
    assert run.wait().code == -signal.SIGKILL
    assert not (tmp_path / "killed" / "results.json").exists()
    command(*words(data, tmp_path / "killed"))
    assert (tmp_path / "killed" / "results.json").read_bytes() == (tmp_path / "whole" / "results.json").read_bytes()

    said = command("eval", "compare", tmp_path / "whole", tmp_path / "killed", "--json", tmp_path / "comparison.json")
    assert "| cruxeval_output | 12 |" in said
    assert all(row["difference"] == 0 for row in json.loads((tmp_path / "comparison.json").read_text())["rows"])
    assert "holds an evaluation with seed=0, not 1" in command(*words(data, tmp_path / "whole", "seed=1"), code=2)


def test_what_is_missing_or_damaged_is_one_sentence(data, tmp_path):
    for line, says in (
        (words(data, tmp_path / "x", "suite=cruxeval_outputs"), "suite=cruxeval_outputs is unknown: did you mean cruxeval_output?"),
        (words(data, tmp_path / "x", "suite=math500"), "math500"),
        (words(tmp_path / "nowhere", tmp_path / "x"), "azr-nemo data prepare"),
        (words(data, tmp_path / "x", "checkpoint=/nowhere"), "checkpoint=/nowhere holds no model"),
        (["eval", "compare", tmp_path, tmp_path], "has no results.json"),
    ):
        done = azr(*line)
        assert (done.returncode, done.stdout) == (2, "")
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in data.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[: -20 if file.name == "cruxeval_input.jsonl" else None])
    assert "cruxeval_input.jsonl is not what was prepared" in azr(*words(damaged, tmp_path / "x")).stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_benchmarks_are_measured_during_training_on_the_same_items(data, tmp_path):
    suites = ["eval.suites=[cruxeval_output]", f"eval.data={data}", "eval.limit=3"]
    command(*TRAIN, f"data.seed_files=[{SEEDS}]", f"run_dir={tmp_path / 'run'}", *suites)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval/cruxeval_output" in row] == [0, 1, 2]
    assert all(row["eval/cruxeval_output_low"] <= row["eval/cruxeval_output"] <= row["eval/cruxeval_output_high"] for row in rows)
    assert all("eval/deduction" in row for row in rows)
    said = command(*TRAIN, f"run_dir={tmp_path / 'other'}", "eval.suites=[cruxeval_outputs]", code=2)
    assert "eval.suites: cruxeval_outputs is unknown" in said
