"""Metrics in MLflow: a run on a tracking server. A resumed run goes on under its id, which is kept in the run directory."""

import importlib.util
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.observe.metrics import Sink
from azr_nemo.settings.schema import RunConfig

NAME = "mlflow.json"  # in the run directory: {"id": ...}
OFF = "set logging.mlflow=false to go on without"
LONGEST = 500  # characters of a parameter, which older servers take


def require_mlflow() -> None:
    """Raises UserError when the package is not there."""
    if importlib.util.find_spec("mlflow") is None:
        raise UserError(f"logging.mlflow=true needs the package mlflow-skinny: pip install 'azr-nemo[mlflow]', or {OFF}")


class MLflow(Sink):
    """A run of MLflow, begun or taken up at once. Steps that a resumed run does again are written again, at the same place, and the later value is the
    one that MLflow shows. Raises UserError when the server cannot be reached or refuses."""

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        """config: of the whole run; its settings are the run's parameters."""
        require_mlflow()
        from mlflow import MlflowClient  # a second of imports, paid only where it is switched on

        self._file, logging = run_dir / NAME, config.logging
        with self._reaching():
            # Its client waits for minutes for a server that is not there, unless told.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            self._client = MlflowClient(tracking_uri=logging.mlflow_uri or None)
            self.run_id = _read(self._file) or self._begin(run_dir, logging.mlflow_experiment, config)
            self._client.update_run(self.run_id, status="RUNNING")
        self._closed = False

    def _begin(self, run_dir: Path, experiment: str, config: RunConfig) -> str:
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        made = self._client.create_run(number, run_name=run_dir.resolve().name)
        parameters = [Param(name, str(value)[:LONGEST]) for name, value in _flat(asdict(config))]
        for start in range(0, len(parameters), 100):  # of one request
            self._client.log_batch(made.info.run_id, params=parameters[start : start + 100])
        try:
            self._file.write_text(json.dumps({"id": made.info.run_id}) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {self._file} ({error.strerror}): make room there, or {OFF}") from None
        return made.info.run_id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with self._reaching():
            self._client.log_batch(self.run_id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def rewind(self, step: int) -> None:
        """Nothing to do: see the class."""

    def close(self) -> None:
        if not self._closed:
            with self._reaching():
                self._client.set_terminated(self.run_id)
            self._closed = True

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            said = " ".join(str(error).split())[:300]
            raise UserError(
                f"MLflow does not take the run ({said}): check logging.mlflow_uri and that the server is up, or {OFF}"
            ) from error


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted keys."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _read(path: Path) -> str:
    """The id that is kept; empty when there is none yet."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise UserError(f"{path} is damaged: delete it, and the run goes on as a new one of MLflow")
    return found["id"]
