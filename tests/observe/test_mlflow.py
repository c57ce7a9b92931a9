"""MLflow gets every step, on a real server of its own; a resumed run goes on under its id. Runs where the whole of MLflow is: `make test-environments`."""

import importlib.util
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import process_trees
import pytest

mlflow = pytest.importorskip("mlflow", reason="MLflow is in the environment of NeMo Gym: `make test-environments`")
if importlib.util.find_spec("mlflow.server") is None or importlib.util.find_spec("sqlalchemy") is None:
    pytest.skip("MLflow's server is not here, only its client", allow_module_level=True)

import requests  # noqa: E402

from azr_nemo.errors import UserError  # noqa: E402
from azr_nemo.observe.metrics import MetricsLog  # noqa: E402
from azr_nemo.observe.mlflow import MLflow  # noqa: E402
from azr_nemo.settings.schema import RunConfig  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder / "artifacts"),
    ]  # fmt: skip
    with process_trees.Process(command, cwd=folder, lasting=True):
        deadline = time.monotonic() + 240
        while True:
            try:
                if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok:
                    break
            except requests.RequestException:
                assert time.monotonic() < deadline
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"


def config(uri: str) -> RunConfig:
    made = RunConfig()
    made.logging.mlflow, made.logging.mlflow_uri, made.optim.lr = True, uri, 3e-6
    return made


def log(run_dir: Path, uri: str, steps: tuple[int, ...], rewind: int | None = None) -> str:
    sink = MLflow(run_dir, config(uri))
    metrics = MetricsLog(run_dir, False, [sink])
    if rewind is not None:
        metrics.rewind(rewind)
    for step in steps:
        metrics.write(step, {"train/loss": step / 10, "propose/deduction/valid": 0.5, "train/entropy": float("nan")})
    metrics.close()
    metrics.close()
    return sink.run_id


def test_a_resumed_run_goes_on_under_its_id(server, tmp_path):
    first = log(tmp_path, server, (0, 1, 2))
    client = mlflow.MlflowClient(server)
    run = client.get_run(first)
    assert (run.info.status, run.info.run_name) == ("FINISHED", tmp_path.name)
    assert run.data.params["optim.lr"] == "3e-06"
    assert log(tmp_path, server, (2, 3), rewind=1) == first
    assert [(point.step, point.value) for point in client.get_metric_history(first, "train/loss")] == [
        (0, 0.0), (1, 0.1), (2, 0.2), (2, 0.2), (3, 0.3),
    ]  # fmt: skip
    assert client.get_run(first).data.metrics["propose/deduction/valid"] == 0.5


def test_a_server_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"MLflow does not take the run .*logging\.mlflow=false") as refused:
        MLflow(tmp_path, config("http://127.0.0.1:9"))
    assert "\n" not in str(refused.value)
