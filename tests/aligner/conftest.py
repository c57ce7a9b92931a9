"""The session's jobs: one import of NeMo-Aligner, one tiny model, and every run and layout once, in forks."""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import process_trees
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ANYWHERE = ("test_aligner_settings.py", "test_rollouts_of_aligner.py")
if importlib.util.find_spec("nemo_aligner") is None:
    # The others need NeMo-Aligner, which has an environment of its own: `make test-aligner`.
    collect_ignore = [path.name for path in HERE.glob("test_*.py") if path.name not in ANYWHERE]
sys.path[:0] = [str(HERE), str(HERE.parent / "selfplay")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that needs a fixture waits for imports and whole runs; on a busy machine that takes minutes."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(1500))


LESSONS = 15  # supervised steps of the tiny model before self-play
STEPS = 3


@pytest.fixture(scope="session")
def forks() -> None:
    """Imports NeMo-Aligner into this process, which then only forks: it never joins a process group itself."""
    import torch

    os.environ.update(TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1", HF_HUB_OFFLINE="1")
    torch.set_num_threads(1)
    from azr_nemo.aligner import cpu, run

    cpu.prepare()
    run.quiet()
    import nemo_aligner.data.nlp.builders  # noqa: F401
    import nemo_aligner.utils.train_script_utils  # noqa: F401
    import nemo_aligner.utils.utils  # noqa: F401


@pytest.fixture(scope="session")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the default engine made, in its own environment: see default_engine.py."""
    python = ROOT / ".venv" / "bin" / "python"
    if not python.is_file():
        pytest.skip("the default engine's environment is not here: make setup")
    folder = tmp_path_factory.mktemp("default")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent / "selfplay")])}
    command = [python, HERE / "default_engine.py", folder, str(LESSONS)]
    done = process_trees.run(command, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def model(default: Path) -> Path:
    """The tiny model as NeMo's checkpoint folder."""
    return default / "nemo"


@pytest.fixture(scope="session")
def layout(forks: None, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """layout(name) takes the canned step in that layout, once, and gives what it wrote: tensors, numbers and the checkpoint's folder."""
    from forking import Job
    from jobs import step_with_canned_completions
    from safetensors.torch import load_file

    folder, made = tmp_path_factory.mktemp("layouts"), {}
    layouts = {"single": ({}, 1), "tp2": ({"tensor_parallel": 2}, 2), "pp2": ({"pipeline_parallel": 2}, 2), "dp2": ({}, 2)}

    def take(name: str) -> dict[str, Any]:
        if name not in made:
            engine, ranks = layouts[name]
            job = Job(partial(step_with_canned_completions, folder, model, name, engine), folder, name, ranks)
            assert job.wait() == [0] * ranks, job.output()
            numbers = json.loads((folder / f"{name}.json").read_text())
            checkpoint = folder / name / "checkpoints" / "step_000001"
            made[name] = {**numbers, **load_file(folder / f"{name}.safetensors"), "checkpoint": checkpoint}
        return made[name]

    return take


@pytest.fixture(scope="session")
def weights(forks: None) -> Callable[[Path], dict[str, Any]]:
    """weights(checkpoint) are those of a checkpoint under Hugging Face names, as `azr-nemo convert` reads them."""
    from safetensors.torch import load_file

    from azr_nemo.conversion.convert import convert

    read: dict[Path, dict[str, Any]] = {}

    def weights_of(checkpoint: Path) -> dict[str, Any]:
        if checkpoint not in read:
            out = checkpoint.with_name(f"{checkpoint.name}_hf")
            convert(checkpoint / "nemo", out, "hf")
            read[checkpoint] = load_file(out / "model.safetensors")
        return read[checkpoint]

    return weights_of


def settings_of_a_run(model: Path, run_dir: Path, seeds: Path) -> list[str]:
    return [
        "recipe=tiny-1n0g-megatron", "engine=aligner", "rollout=nemo", "model=local", f"model.path={model}", "model.dtype=float32",
        f"run_dir={run_dir}", "warmup.steps=0", f"selfplay.steps={STEPS}", "selfplay.batch_size=4", "selfplay.induction_pairs=4",
        "selfplay.reference_sampling=uniform", "rollout.estimate_samples=2", "rollout.max_propose_tokens=48", "rollout.max_solve_tokens=32",
        "rollout.max_batch_rows=12", "eval.items=0", "data.seed_factor=1", f"data.seed_files=[{seeds}]", "checkpoint.every=1",
        "checkpoint.keep=9", "optim.lr=1e-4", "aligner.micro_batch=12", "logging.tensorboard=false", "logging.console=plain",
        "executor.workers=1", "engine.threads=1",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seed tasks like those that the tiny model was taught."""
    from sample_tasks import adder

    rows: list[dict[str, Any]] = []
    for number in range(1, 7):
        rows.append({"snippet": adder(number), "input": "1", "output": str(1 + number), "imports": []})
        inputs = [str(x) for x in range(1, 5)]
        outputs = [str(x + number) for x in range(1, 5)]
        rows.append({"snippet": adder(number), "inputs": inputs, "outputs": outputs, "message": f"Adds {number}.", "imports": []})
    path = tmp_path_factory.mktemp("seeds") / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def whole_run(model: Path, seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Three self-play steps as a user starts them, in a process of their own: the run's folder and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    command = [sys.executable, "-m", "azr_nemo", "train", *settings_of_a_run(model, folder, seeds)]
    done = process_trees.run(command, timeout=600, merged=True)
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


@pytest.fixture(scope="session")
def killed_run(forks: None, model: Path, seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same run, killed in its third step and started again: its folder and what the second start printed."""
    from forking import LIMIT_S, Job
    from jobs import train_run

    folder = tmp_path_factory.mktemp("killed")
    overrides = settings_of_a_run(model, folder / "run", seeds)
    first = Job(partial(train_run, overrides), folder, "first")
    deadline = time.monotonic() + LIMIT_S
    while not (folder / "run" / "checkpoints" / "step_000002").is_dir():
        assert time.monotonic() < deadline, first.output()
        time.sleep(0.02)
    time.sleep(0.5)
    first.kill()
    assert first.wait() == [-9], "it was to be killed in the middle"
    assert not (folder / "run" / "checkpoints" / "step_000003").exists()
    second = Job(partial(train_run, overrides), folder, "second")
    assert second.wait() == [0], second.output()
    return folder / "run", second.output()
