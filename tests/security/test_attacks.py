"""No program gets out of the jail, spoils what comes after it, or is believed when it lies: on every rung that this machine offers."""

import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from attacks import FILES, NETWORK, PROCESSES, RESOURCES, Attack, fitted
from injections import GRADING
from lies import FORGING, OUTPUT, STATE
from next_programs import EXPECTED, NEXT

from azr_nemo.sandbox.executor import Limits, Request
from azr_nemo.sandbox.local import jail
from azr_nemo.sandbox.local.pool import LocalPool

SECRET = "correct-horse-battery-staple"
HARSH = Limits(wall_s=0.3, cpu_s=0.3, memory_mb=256)  # for what may well take for ever
FIRM = Limits(wall_s=20.0, cpu_s=20.0, memory_mb=256)
PATIENT = Limits(wall_s=30.0, cpu_s=30.0)
ATTACKS = FILES + NETWORK + PROCESSES + RESOURCES + OUTPUT + STATE + FORGING + GRADING
FAMILIES = {"files", "network", "processes", "memory and CPU", "output and pipes", "interpreter state", "result forging", "grading"}
BESIDE = Request("def f(x):\n    'ANOTHERS_PROGRAM'\n    return x", ("7",), PATIENT)


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


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_the_attack_gains_nothing_and_the_next_twenty_programs_run_as_ever(world: World, attack: Attack):
    if attack.machine and attack.machine != os.uname().machine:
        pytest.skip(f"made for {attack.machine}")
    pids = world.pool.pids()
    limits = HARSH if "timeout" in attack.accept else FIRM
    program = fitted(attack.program, str(world.secret_file), world.server.getsockname()[1])
    attempt = world.pool.submit(Request(program, attack.arguments, limits))
    beside = world.pool.submit(BESIDE)
    for argument, outcome in zip(attack.arguments, attempt.result(timeout=60), strict=True):
        assert outcome.status in attack.accept, (argument, outcome)
        assert SECRET not in f"{outcome.value}{outcome.error}"
        assert not outcome.ok or attack.value in (None, outcome.value)
        assert attack.family != "grading" or outcome.value != "7", argument
        assert outcome.cpu_s + outcome.wall_s < 60
    assert beside.result(timeout=60)[0].value == "7"
    results = world.pool.run(NEXT)
    assert [[str(one.value) for one in outcomes] for outcomes in results] == EXPECTED
    assert world.pool.pids() == pids, "an attack ended a worker"
    assert world.secret_file.read_text() == SECRET
    with pytest.raises(BlockingIOError):
        world.server.accept()


def test_there_are_attacks_of_every_family_and_twenty_different_programs_after_each():
    counts = Counter(attack.family for attack in ATTACKS for _ in attack.arguments)
    assert set(counts) == FAMILIES
    assert min(counts.values()) >= 9
    assert counts.total() >= 250
    assert len({str(attack) for attack in ATTACKS}) == len(ATTACKS)
    assert len({request.program for request in NEXT}) == len(NEXT) == 20
