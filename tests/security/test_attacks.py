"""No program gets out of the jail, spoils what comes after it, or is believed when it lies: on every rung that this machine offers."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from attacks import ATTACKS, Attack

from azr_nemo.sandbox.executor import Limits, Request
from azr_nemo.sandbox.local import jail
from azr_nemo.sandbox.local.pool import LocalPool

SECRET = "correct-horse-battery-staple"
HARSH = Limits(wall_s=1.5, cpu_s=1.5, memory_mb=256)  # for what may well take for ever
FIRM = Limits(wall_s=20.0, cpu_s=20.0, memory_mb=256)
PATIENT = Limits(wall_s=30.0, cpu_s=30.0)
AFTER = [
    Request("import math, builtins\ndef f(x):\n    return len('ab'), math.pi, repr(x), 'leak' in globals()", ("[1, 'a']",), PATIENT),
    Request(
        "import json, ast, re, sys\ndef f(x):\n    return json.dumps(ast.literal_eval(x)), sys.getrecursionlimit()",
        ("'[1]'", "'{}'"),
        PATIENT,
    ),
    Request("def f(x):\n    return sorted({'b', 'a', 'c'}), x", ("1",), PATIENT, deterministic=True),
]
AFTER_VALUES = [[repr((2, 3.141592653589793, "[1, 'a']", False))], [repr(("[1]", 1000)), repr(("{}", 1000))], [repr((["a", "b", "c"], 1))]]


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
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        patch.setenv("AZR_TEST_SECRET", SECRET)
        server.settimeout(0)
        with LocalPool(workers=2, limits=PATIENT, rung=request.param) as pool:
            yield World(pool, secret_file, server)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_the_attack_gains_nothing_and_the_next_programs_run_as_ever(world: World, attack: Attack):
    program = attack.program.replace("SECRET_FILE", str(world.secret_file)).replace("PORT", str(world.server.getsockname()[1]))
    pids = world.pool.pids()
    attempt = world.pool.submit(Request(program, (attack.argument,), HARSH if "timeout" in attack.accept else FIRM))
    beside = world.pool.submit(Request("def f(x):\n    'ANOTHERS_PROGRAM'\n    return x", ("7",), PATIENT))
    (outcome,) = attempt.result(timeout=60)
    assert outcome.status in attack.accept, outcome
    assert SECRET not in f"{outcome.value}{outcome.error}"
    if outcome.ok and attack.value is not None:
        assert outcome.value == attack.value
    if attack.family == "grading":
        assert outcome.value != "7"
    assert beside.result(timeout=60)[0].value == "7"
    results = world.pool.run(AFTER * 2)
    assert [[one.value for one in outcomes] for outcomes in results] == AFTER_VALUES * 2
    assert world.pool.pids() == pids, "an attack ended a worker"
    assert world.secret_file.read_text() == SECRET
    with pytest.raises(BlockingIOError):
        world.server.accept()
