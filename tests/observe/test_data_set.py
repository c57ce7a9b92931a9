"""A run's rollouts and tasks travel: Parquet that says all that the run knew, found by `datasets` through the card."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from azr_nemo.errors import UserError
from azr_nemo.observe.data_set import write_data_set
from azr_nemo.observe.rollout_log import Rollout, write_step
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.tasks.task import Role, Task, TaskType

TASK = Task(TaskType.DEDUCTION, "def f(x):\n    return x + '\\u2028'", ("'a'",), ("'a\\u2028'",))
PAIRS = Task(TaskType.INDUCTION, "def f(x):\n    return x", ("1", "2"), ("1", "2"), "the same")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    with TaskBuffer(folder / "buffer.sqlite", 100) as buffer:
        first = buffer.add(TASK, 0, seed=True)
        buffer.record(buffer.add(PAIRS, 1, references=[first], thought="half a \ud800 pair"), 1, 4)
    for step in (1, 2):
        rows = [
            Rollout("solve", Role.SOLVE, TaskType.DEDUCTION, 1, (), "f?", "g\udc00", "right", 1.0, 0.5, 3),
            Rollout("propose", Role.PROPOSE, TaskType.INDUCTION, None, (1,), "p", "c", "format", -1.0, None, 7),
        ]
        write_step(folder, step, rows)
    return folder


def test_all_that_the_run_kept_is_there(run_dir, tmp_path):
    assert write_data_set(run_dir, tmp_path / "out", "mit") == (2, 2)
    seed, task = pq.read_table(tmp_path / "out" / "tasks.parquet").to_pylist()
    assert (seed["program"], seed["inputs"], seed["outputs"], seed["is_seed"]) == (TASK.program, ["'a'"], list(TASK.outputs), True)
    assert (task["references"], task["attempts"], task["solved"], task["message"]) == ([seed["id"]], 4, 1, "the same")
    card = (tmp_path / "out" / "README.md").read_text()
    about = yaml.safe_load(card.split("---")[1])
    assert about["license"] == "mit"
    assert [config["config_name"] for config in about["configs"]] == ["tasks", "rollouts"]
    assert "2 rows" in card


def test_what_cannot_be_written_leaves_nothing(run_dir, tmp_path):
    with pytest.raises(UserError, match="neither tasks nor rollouts"):
        write_data_set(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="already exists"):
        write_data_set(run_dir, tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there"]


def test_datasets_loads_both(run_dir, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is in the environment of NeMo Gym: `make test-environments`")
    write_data_set(run_dir, tmp_path / "out")
    found = {
        name: datasets.load_dataset(str(tmp_path / "out"), name, split="train", cache_dir=tmp_path / "cache")
        for name in ("tasks", "rollouts")
    }
    assert found["tasks"]["type"] == ["deduction", "induction"]
    assert list(found["rollouts"]["step"]) == [1, 1, 2, 2]
    assert found["rollouts"][1]["references"] == [1]
