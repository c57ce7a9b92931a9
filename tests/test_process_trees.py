"""What tests start dies with them, whatever ends them, and a session that leaves a process behind fails."""

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import process_trees
import pytest

HERE = Path(__file__).parent
# No signal to a group reaches them together: as each of torchrun's ranks, the inner one has a session of its own.
TREE = ["sh", "-c", "setsid sh -c 'sleep 997; true' & sleep 997; true"]
INNER = f"""
import os, threading
import process_trees

def test():
    process = process_trees.Process({TREE!r})
    while len(process_trees.alive(process.mark)) < 4:
        pass
    fork = process_trees.fork() or threading.Event().wait()
    started = [os.getpid(), fork, *process_trees.alive(process.mark)]
    with open("started", "w") as file:
        print(*started, file=file)
    threading.Event().wait()
"""
# What runs inside such a process itself.
JOBS = {"trainer/run_server.py", "parity/lost_rank_job.py", "slurm/stand_in.py", "pretended_gpu/pretended_rank.py"}
WITHIN = {"process_guard.py", "process_trees.py", *JOBS}
CALLS = {"subprocess": {"run", "Popen", "call", "check_call", "check_output"}, "os": {"fork", "system", "posix_spawn"}}


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def running(pid: int) -> bool:
    """Not for one that has been killed and for whom its parent has not waited."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def pytest_over(folder: Path, tests: str, *options: str) -> process_trees.Process:
    """A pytest of its own over this one file of tests, with nothing but the guard and what the options name."""
    (folder / "test_inner.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "process_guard", *options, "test_inner.py"]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return process_trees.Process(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_the_whole_tree_of_a_process_dies_with_it() -> None:
    with process_trees.Process(TREE) as process:
        assert eventually(lambda: len(process_trees.alive(process.mark)) == 4)
    assert not process_trees.alive(process.mark)
    assert process.returncode == -signal.SIGKILL


def test_a_time_limit_is_the_whole_trees() -> None:
    number = process_trees.next_number()
    with pytest.raises(subprocess.TimeoutExpired):
        process_trees.run(TREE, timeout=0.3)
    assert not process_trees.alive(f"{process_trees.session_mark()}{number + 1}/")


def test_a_program_that_no_test_started_takes_no_other_ones_processes_for_its_own() -> None:
    says = [sys.executable, "-c", "import process_trees; print(process_trees.session_mark())"]
    alone = ["env", f"--unset={process_trees.MARK}", *says]
    marks = {process_trees.run(alone, timeout=120, env={**os.environ, "PYTHONPATH": str(HERE)}, check=True).stdout for _ in range(2)}
    assert len(marks) == 2
    assert "\n" not in marks


def test_a_command_that_leaves_a_process_behind_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_trees, "PATIENCE_S", 0.3)
    with pytest.raises(AssertionError, match=r"left behind: \d+ 'sleep 996', started by tests/test_process_trees\.py::"):
        process_trees.run(["sh", "-c", "exec >&- 2>&-; setsid sleep 996 &"], timeout=20)


def test_a_started_process_has_one_thread_which_does_not_spin_and_so_has_pytest() -> None:
    import torch

    assert torch.get_num_threads() == 1
    said = process_trees.run(["sh", "-c", "echo $OMP_NUM_THREADS $OMP_WAIT_POLICY"], timeout=20, env={"PATH": os.environ["PATH"]}).stdout
    assert said == "1 passive\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "killed"),
    [
        (["-p", "xdist", "-n", "1"], "controller"),
        (["-p", "xdist", "-n", "1"], "worker"),
        (["-p", "pytest_timeout", "--timeout=5", "--timeout-method=thread"], ""),
        (["-p", "pytest_timeout", "--timeout=5", "--timeout-method=signal"], ""),
    ],
    ids=["controller killed", "worker killed", "time limit that ends pytest", "time limit"],
)
def test_what_a_test_started_dies_with_it(tmp_path: Path, options: list[str], killed: str) -> None:
    inner = pytest_over(tmp_path, INNER, *options)
    file = tmp_path / "started"
    assert eventually(lambda: file.exists() and file.read_text().endswith("\n")), inner.stdout.read()
    started = [int(word) for word in file.read_text().split()]
    assert len(started) == 6
    if killed:
        assert all(map(running, started))
        os.kill(inner.pid if killed == "controller" else started[0], signal.SIGKILL)
    said, _ = inner.communicate(timeout=60)
    assert inner.returncode != 0, said
    assert "left behind" not in said
    assert eventually(lambda: not any(map(running, started)))


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-p", "xdist", "-n", "1"]], ids=["alone", "under xdist"])
def test_a_session_that_leaves_a_process_behind_fails_and_names_it(tmp_path: Path, options: list[str]) -> None:
    inner = pytest_over(tmp_path, "def test():\n    print(__import__('subprocess').Popen(['sleep', '997'], env={}).pid)\n", *options, "-rP")
    said, _ = inner.communicate(timeout=60)
    assert inner.returncode == 1, said
    assert "1 passed" in said
    assert "left behind: " in said
    assert "sleep 997" in said


def test_tests_start_processes_in_this_way_alone() -> None:
    found = set()
    for path in HERE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Call(ast.Attribute(ast.Name(module), name)) if name in CALLS.get(module, ()):
                    found.add(path.relative_to(HERE).as_posix())
    assert found <= WITHIN, found - WITHIN
