"""The pool keeps its promises to the trainer: order, bounds, cancellation, replacement of workers, and nothing left behind."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from contextlib import suppress

import process_trees
import pytest

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Request, Status
from azr_nemo.sandbox.local import jail, process
from azr_nemo.sandbox.local.pool import LocalPool

ADD = "def f(x):\n    return x + 1"
SLEEP = "import time\ndef f(x):\n    time.sleep(x)\n    return x"
PATIENT = Limits(wall_s=30.0, cpu_s=30.0)


@pytest.fixture
def make(pool):
    """Makes pools on the rung that holds here and closes them."""
    made = []

    def _make(**options) -> LocalPool:
        made.append(LocalPool(**{"workers": 2, "limits": PATIENT, "rung": pool.rung, **options}))
        return made[-1]

    yield _make
    for one in made:
        one.close()


def add(pool, x: int) -> str | None:
    (outcome,) = pool.submit(Request(ADD, (str(x),))).result(timeout=60)
    return outcome.value


def children_of(pid: int) -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found |= {int(name)} | children_of(int(name))
    return found


def eventually(condition, seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_outcomes_come_in_the_order_of_requests(pool):
    results = pool.run(Request(ADD, (str(x), str(-x)), deterministic=x % 3 == 0) for x in range(60))
    assert [[outcome.value for outcome in outcomes] for outcomes in results] == [[str(x + 1), str(1 - x)] for x in range(60)]


def test_describe_names_the_rung_and_the_workers(pool):
    assert "rung" in pool.describe()
    assert "2 workers" in pool.describe()


def test_a_future_is_awaitable(pool):
    async def main() -> list:
        return await asyncio.gather(*(asyncio.wrap_future(pool.submit(Request(ADD, (str(x),)))) for x in range(5)))

    assert [outcomes[0].value for outcomes in asyncio.run(main())] == ["1", "2", "3", "4", "5"]


def test_many_threads_may_submit_at_once(pool):
    wrong = []

    def work(base: int) -> None:
        wrong.extend(x for x in range(base, base + 20) if add(pool, x) != str(x + 1))

    threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_limits_left_at_the_default_are_the_pools(make):
    pool = make(limits=Limits(wall_s=0.3, cpu_s=0.3))
    assert pool.submit(Request(SLEEP, ("5",))).result()[0].status is Status.TIMEOUT
    assert pool.submit(Request(SLEEP, ("0.5",), Limits(wall_s=20.0))).result()[0].status is Status.OK


def test_one_worker_still_checks_determinism(make):
    pool = make(workers=1)
    assert "a second for determinism" in pool.describe()
    (outcome,) = pool.submit(Request("def f(x):\n    return list({'a', 'b', 'c', 'd'})", ("1",), deterministic=True)).result()
    assert outcome.status is Status.NONDETERMINISTIC
    assert [add(pool, x) for x in range(5)] == ["1", "2", "3", "4", "5"]


def test_a_request_that_has_not_begun_can_be_cancelled(make):
    pool = make()
    busy = [pool.submit(Request(SLEEP, ("1",))) for _ in range(2)]
    waiting = pool.submit(Request(ADD, ("1",)))
    assert waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result()
    assert all(future.result()[0].ok for future in busy)
    assert add(pool, 1) == "2"


def test_a_full_queue_makes_submit_wait_and_callbacks_are_never_blocked(make):
    pool = make(queue=2)
    inside = []
    futures = [pool.submit(Request(SLEEP, ("0.5",))) for _ in range(2)]
    assert eventually(lambda: all(future.running() for future in futures))
    futures[0].add_done_callback(lambda _: inside.extend(pool.submit(Request(ADD, (str(x),))) for x in range(8)))
    start = time.monotonic()
    futures += [pool.submit(Request(ADD, ("1",))) for _ in range(5)]
    assert time.monotonic() - start > 0.2
    assert all(future.result(timeout=30)[0].ok for future in futures)
    assert eventually(lambda: len(inside) == 8)
    assert [future.result(timeout=30)[0].value for future in inside] == [str(x + 1) for x in range(8)]


def test_a_worker_killed_in_mid_request_is_replaced_and_the_request_repeated(make):
    pool = make()
    future = pool.submit(Request(SLEEP, ("1.5",)))
    time.sleep(0.5)
    old = pool.pids()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    assert future.result(timeout=30)[0].value == "1.5"
    assert [add(pool, x) for x in range(10)] == [str(x + 1) for x in range(10)]
    pool.run([Request(ADD, ("1",), deterministic=True)] * 10)  # both workers are needed
    assert set(pool.pids()).isdisjoint(old)


def test_a_request_whose_workers_die_twice_is_unavailable_and_never_an_outcome(make):
    pool = make()
    future = pool.submit(Request(SLEEP, ("20",)))
    until = time.monotonic() + 30
    while not future.done() and time.monotonic() < until:
        for pid in pool.pids():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)
    with pytest.raises(ExecutorUnavailable, match="twice"):
        future.result(timeout=1)
    assert [add(pool, x) for x in range(4)] == ["1", "2", "3", "4"]


@pytest.mark.slow
def test_a_stopped_worker_is_given_up_within_the_bound(make, monkeypatch):
    monkeypatch.setattr(process, "MARGIN_S", 0.5)
    pool = make()
    for pid in pool.pids():
        for stopped in {pid} | children_of(pid):
            os.kill(stopped, signal.SIGSTOP)
    start = time.monotonic()
    assert pool.submit(Request(ADD, ("1",), Limits(wall_s=1.0))).result(timeout=60)[0].value == "2"
    assert time.monotonic() - start < 20


def test_workers_are_recycled(make):
    pool = make(recycle_after=5)
    first = set(pool.pids())
    results = pool.run(Request(ADD, (str(x),), deterministic=True) for x in range(40))
    assert [outcomes[0].value for outcomes in results] == [str(x + 1) for x in range(40)]
    assert eventually(lambda: first.isdisjoint(pool.pids()))


@pytest.mark.slow
def test_five_hundred_requests_leave_no_process_no_file_and_no_zombie(make):
    pool = make(recycle_after=50)
    pool.run([Request(ADD, ("1",))] * 20)
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    crash = "import os\ndef f(x):\n    os._exit(0)"
    pool.run([Request((ADD, crash)[x % 2], ("1", "2")) for x in range(500)])
    gc.collect()
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
    below = {child for pid in pool.pids() for child in children_of(pid)}
    assert len(below) <= 2 * len(pool.pids())  # a rung's own init and worker
    left = children_of(os.getpid()) & (below | set(pool.pids()))
    pool.close()
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in left))


def test_a_closed_pool_refuses_and_those_who_wait_hear_of_it(make):
    pool = make()
    futures = [pool.submit(Request(SLEEP, ("20",))) for _ in range(6)]
    time.sleep(0.3)
    start = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - start < 10
    for future in futures:
        with pytest.raises(ExecutorUnavailable):
            future.result(timeout=5)
    with pytest.raises(ExecutorUnavailable, match="closed"):
        pool.submit(Request(ADD, ("1",)))


def test_close_frees_a_submitter_that_waits_for_room(make):
    pool = make(queue=1)
    refused = threading.Event()

    def flood() -> None:
        try:
            while True:
                pool.submit(Request(SLEEP, ("20",)))
        except ExecutorUnavailable:
            refused.set()

    thread = threading.Thread(target=flood)
    thread.start()
    time.sleep(0.5)
    pool.close()
    assert refused.wait(10)
    thread.join(10)


def test_a_pool_outlives_the_thread_that_made_it(make):
    made = []
    thread = threading.Thread(target=lambda: made.append(make()))
    thread.start()
    thread.join()
    time.sleep(0.3)
    pids = made[0].pids()
    assert [add(made[0], x) for x in range(6)] == [str(x + 1) for x in range(6)]
    assert made[0].pids() == pids


def test_workers_die_with_the_trainer(pool):
    script = (
        "from azr_nemo.sandbox.local.pool import LocalPool\nfrom azr_nemo.sandbox.executor import Request\nimport os, time\n"
        f"pool = LocalPool(workers=2, rung={str(pool.rung)!r})\n"
        "pool.submit(Request('import time\\ndef f(x):\\n    time.sleep(60)', ('1',)))\n"
        "time.sleep(0.5)\nprint(*pool.pids(), flush=True)\ntime.sleep(60)\n"
    )
    trainer = process_trees.Process([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    pids = [int(word) for word in trainer.stdout.readline().split()]
    family = {child for pid in pids for child in {pid} | children_of(pid)}
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    assert len(family) >= 3
    assert eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in family))


@pytest.mark.parametrize("rung", jail.Rung)
def test_a_signal_to_the_whole_job_changes_no_outcome(rung):
    try:
        pool = LocalPool(workers=1, limits=Limits(wall_s=20.0, cpu_s=20.0), rung=rung)
    except ExecutorUnavailable as error:
        pytest.skip(str(error))
    with pool:
        pids = list(pool.pids())
        pending = pool.submit(Request(SLEEP, ("1",)))
        time.sleep(0.5)
        family = {member for pid in pids for member in {pid} | children_of(pid)}
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            for member in family:
                with suppress(ProcessLookupError):  # a helper of the start, which has ended
                    os.kill(member, number)
        assert pending.result()[0].ok
        assert list(pool.pids()) == pids
        assert add(pool, 1) == "2"


def test_it_starts_beside_torch_and_many_threads_and_quickly(make):
    import torch

    torch.ones(100, 100) @ torch.ones(100, 100)
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(50)]
    for thread in threads:
        thread.start()
    try:
        start = time.monotonic()
        assert add(make(), 1) == "2"
        assert time.monotonic() - start < 5  # a tenth of that on an idle machine
    finally:
        stop.set()


def test_a_program_sees_nothing_of_the_trainers_environment(make, monkeypatch):
    monkeypatch.setenv("AZR_SECRET", "hunter2")
    pool = make()
    outcome = pool.submit(Request("import os\ndef f():\n    return dict(os.environ), os.getcwd()", ("",))).result()[0]
    assert outcome.value == "({}, '/')"


def test_a_rung_that_does_not_hold_is_not_chosen_and_none_is_one_sentence(monkeypatch):
    def nothing(rung: jail.Rung) -> jail.Probe:
        return jail.Probe(rung, False, "tried in vain")

    monkeypatch.setattr(jail, "probe_rung", nothing)
    with pytest.raises(ExecutorUnavailable, match=r"tried in vain.*executor\.allow_unjailed=true"):
        LocalPool()
    with LocalPool(allow_unjailed=True, limits=PATIENT) as pool:
        assert "NOT JAILED" in pool.describe()
        assert add(pool, 1) == "2"


def test_a_worker_that_cannot_start_says_why(monkeypatch):
    broken = jail.Plan(jail.Rung.UNJAILED, ("/bin/sh", "-c", "echo no such luck >&2; exit 1", "--"), {})
    with pytest.raises(ExecutorUnavailable, match="no such luck"):
        process.Worker(broken, hash_seed=1)
    with pytest.raises(ExecutorUnavailable, match="could not be started"):
        process.Worker(jail.Plan(jail.Rung.UNJAILED, ("/no/such/program",), {}), hash_seed=1)


def test_a_full_disk_is_no_concern_of_the_executors(pool, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() or process_trees.run(mount, timeout=20).returncode:
        pytest.skip("a file system of one's own needs the right to mount")
    try:
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "filler").write_bytes(b"x" * (1 << 20))
        script = (
            "from azr_nemo.sandbox.local.pool import LocalPool\nfrom azr_nemo.sandbox.executor import Request\n"
            f"with LocalPool(workers=2, rung={str(pool.rung)!r}, recycle_after=2) as pool:\n"
            f"    print(*(outcome.value for (outcome,) in pool.run([Request({ADD!r}, ('1',), deterministic=True)] * 8)))\n"
        )
        environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
        ran = process_trees.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, timeout=60)
        assert ran.stdout.split() == ["2"] * 8, ran.stderr
    finally:
        process_trees.run(["umount", tmp_path], timeout=20, check=True)


@pytest.mark.slow
def test_replaced_workers_leave_no_orphans_to_an_init_that_may_not_be_there(pool):
    script = (
        "import ctypes, os\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans come to this process\n"
        "from azr_nemo.sandbox.local.pool import LocalPool\nfrom azr_nemo.sandbox.executor import Request\n"
        f"with LocalPool(workers=2, rung={str(pool.rung)!r}, recycle_after=2) as pool:\n"
        f"    pool.run([Request({ADD!r}, ('1',))] * 30)\n"
        "try:\n    print(os.waitpid(-1, 0))\nexcept ChildProcessError:\n    print('none left')\n"
    )
    ran = process_trees.run([sys.executable, "-c", script], timeout=60)
    assert ran.stdout == "none left\n", ran.stdout + ran.stderr
