"""What the attacks have before them, once for each rung that this machine offers."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from azr_nemo.sandbox.executor import Limits
from azr_nemo.sandbox.local import jail
from azr_nemo.sandbox.local.pool import LocalPool

SECRET = "correct-horse-battery-staple"
PATIENT = Limits(wall_s=30.0, cpu_s=30.0)


@dataclass
class World:
    """A pool on one rung, and what a program might want to reach outside it."""

    pool: LocalPool
    secret_file: Path
    server: socket.socket


@pytest.fixture(scope="module", params=list(jail.LADDER), ids=str)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    probe = jail.probe_rung(request.param)
    if not probe.ok:
        pytest.skip(f"{request.param} does not hold here: {probe.reason}")
    secret_file = tmp_path_factory.mktemp("trainer") / "secret"
    secret_file.write_text(SECRET)
    secret_file.chmod(0o644)
    secret_file.with_name("secret_module.py").write_text(f"SECRET = {SECRET!r}")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.setenv("AZR_TEST_SECRET", SECRET)
        server.settimeout(0)
        with LocalPool(workers=2, limits=PATIENT, rung=request.param, recycle_after=10**6) as pool:
            yield World(pool, secret_file, server)
