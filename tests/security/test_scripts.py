"""Whole scripts have a pair of sockets, threads and the machine's name more than programs do, and gain nothing else by them: on every rung."""

import os
import re

import pytest
from attacks import FILES, NETWORK, PROCESSES, Attack, fitted
from quick_part import quick_part
from scripts import SCRIPTS, ScriptAttack
from world import SECRET, World

from azr_nemo.sandbox.executor import Limits, Script, ScriptResult, ScriptStatus

MEMORY_MB = 256
HONEST = "import threading\nt = threading.Thread(target=print, args=(int(input()) + 1,))\nt.start()\nt.join()\nprint(open(0).encoding)"
ALLOWED_TO_SCRIPTS = {"start a thread", "a pair of unix sockets"}
CALLS_OF_SCRIPTS = r"\b(getsockname|sendto|recvfrom)\b"  # they get as far as the kernel; what they may be used for is in SCRIPTS


def run(world: World, source: str, seconds: float = 20.0) -> ScriptResult:
    """How the script ended, once it is sure that honest ones run after it."""
    pids = world.pool.pids()
    program = fitted(source, str(world.secret_file), world.server.getsockname()[1])
    attempt = world.pool.submit_script(Script(program, "", Limits(seconds, seconds, MEMORY_MB)))
    honest = [world.pool.submit_script(Script(HONEST, "6\n", Limits(20.0, 20.0, MEMORY_MB))) for _ in pids]
    for result in (one.result(timeout=60) for one in honest):
        assert (result.status, result.return_code, result.stdout) == ("finished", 0, "7\nutf-8\n"), result
    ended = attempt.result(timeout=60)
    assert world.pool.pids() == pids, "an attack ended a worker"
    assert SECRET not in ended.stdout + ended.stderr
    assert world.secret_file.read_text() == SECRET
    with pytest.raises(BlockingIOError):
        world.server.accept()
    return ended


def how(result: ScriptResult) -> str:
    if result.status is not ScriptStatus.FINISHED or result.return_code is None:
        return result.status.value
    return "finished" if result.return_code == 0 else "refused" if result.return_code > 0 else "killed"


@pytest.mark.parametrize("attack", quick_part(SCRIPTS), ids=str)
def test_what_a_script_may_do_more_takes_it_no_further(world: World, attack: ScriptAttack):
    result = run(world, attack.source, attack.seconds)
    assert how(result) in attack.ends, result
    assert attack.stdout in (None, result.stdout), result


@pytest.mark.parametrize("attack", quick_part(one for one in FILES + NETWORK + PROCESSES if one.name not in ALLOWED_TO_SCRIPTS), ids=str)
def test_what_is_refused_to_a_program_is_refused_to_a_script(world: World, attack: Attack):
    if attack.machine and attack.machine != os.uname().machine:
        pytest.skip(f"made for {attack.machine}")
    source = re.sub(CALLS_OF_SCRIPTS, "", attack.program)
    result = run(world, f"{source}\nprint(f(1))  # with a thread", 0.3 if "timeout" in attack.accept else 20.0)
    told = {"finished": "ok", "killed": "crashed", "refused": "error"}.get(how(result), "timeout")
    assert told in attack.accept or (told == "error" and "forbidden" in attack.accept), result
    assert told != "ok" or attack.value in (None, result.stdout.strip()), result
