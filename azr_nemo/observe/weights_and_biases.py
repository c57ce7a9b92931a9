"""Metrics in Weights & Biases. A resumed run goes on under its id, which is kept in the run directory."""

import importlib.util
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.observe.metrics import Sink
from azr_nemo.settings.schema import RunConfig

NAME = "wandb.json"  # in the run directory: {"id": ..., "lines": how many it was sent}
OFF = "set logging.wandb=false to go on without"


def require_wandb() -> None:
    """Raises UserError when the package is not there."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError(f"logging.wandb=true needs the package wandb: pip install 'azr-nemo[wandb]', or {OFF}")


class WeightsAndBiases(Sink):
    """A run of Weights & Biases, begun or taken up at once; its files lie in `run_dir/wandb`.

    Its own step counts lines and never goes back, so that it takes the steps that a resumed run does again; they are drawn over `step`, at the
    same place as before. Raises UserError when it cannot be reached or does not know who asks.
    """

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        """config: of the whole run, shown beside its curves."""
        require_wandb()
        import wandb  # takes a second, paid only where it is switched on

        self._file = run_dir / NAME
        known = _read(self._file)
        logging = config.logging
        run_id = logging.wandb_run_id or known.get("id") or secrets.token_hex(4)
        with self._reaching():
            self._run = wandb.init(
                project=logging.wandb_project,
                name=run_dir.resolve().name,
                id=run_id,
                resume="allow",
                dir=run_dir,
                config=asdict(config),
                allow_val_change=True,
                mode="offline" if logging.wandb_offline else None,
                settings=wandb.Settings(console="off", silent=True),  # the console is our own
            )
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        self._lines = max(known.get("lines", 0) if known.get("id") == run_id else 0, self._run.step)
        self._remember()

    @property
    def run_id(self) -> str:
        return str(self._run.id)

    @property
    def place(self) -> str:
        """Its address, or its folder when it is offline."""
        return str(Path(self._run.dir).parent) if self._run.offline else str(self._run.url)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with self._reaching():
            self._run.log({**values, "step": step}, step=self._lines)
        self._lines += 1
        self._remember()

    def rewind(self, step: int) -> None:
        """Nothing to do: see the class."""

    def close(self) -> None:
        with self._reaching():
            self._run.finish()

    def _remember(self) -> None:
        aside = self._file.with_name(f".{NAME}.writing")
        try:
            aside.write_text(json.dumps({"id": self.run_id, "lines": self._lines}) + "\n", encoding="utf-8")
            os.replace(aside, self._file)
        except OSError as error:
            raise UserError(f"cannot write {self._file} ({error.strerror}): make room there, or {OFF}") from None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import wandb

        try:
            yield
        except (wandb.Error, OSError) as error:
            said = " ".join(str(error).split())
            raise UserError(
                f"Weights & Biases does not take the run ({said}): log in with `wandb login`, keep its files here with logging.wandb_offline=true, "
                f"or {OFF}"
            ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("id"), str) or not isinstance(found.get("lines"), int):
        raise UserError(f"{path} is damaged: delete it, and give the id of the run to go on with as logging.wandb_run_id, if there is one")
    return found
