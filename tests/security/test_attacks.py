"""No program gets out of the jail, spoils what comes after it, or is believed when it lies: on every rung that this machine offers."""

import os
from collections import Counter

import pytest
from attacks import FILES, NETWORK, PROCESSES, RESOURCES, Attack, fitted
from injections import GRADING
from lies import FORGING, OUTPUT, STATE
from next_programs import EXPECTED, NEXT
from quick_part import quick_part
from world import PATIENT, SECRET, World

from azr_nemo.sandbox.executor import Limits, Request

HARSH = Limits(wall_s=0.3, cpu_s=0.3, memory_mb=256)  # for what may well take for ever
FIRM = Limits(wall_s=20.0, cpu_s=20.0, memory_mb=256)
ATTACKS = FILES + NETWORK + PROCESSES + RESOURCES + OUTPUT + STATE + FORGING + GRADING
FAMILIES = {"files", "network", "processes", "memory and CPU", "output and pipes", "interpreter state", "result forging", "grading"}
BESIDE = Request("def f(x):\n    'ANOTHERS_PROGRAM'\n    return x", ("7",), PATIENT)


@pytest.mark.parametrize("attack", quick_part(ATTACKS, of=8), ids=str)
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
