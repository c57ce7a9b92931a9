"""The server takes the place of a Sandbox-Fusion server: the official client, unchanged, is content; everybody else hears what was wrong."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import sandbox_fusion
from sandbox_fusion import CommandRunStatus, RunCodeRequest, RunCodeResponse, RunStatus
from servers import OurServer

from azr_nemo.sandbox.server import is_this_machine


@pytest.fixture(scope="module")
def server() -> Iterator[OurServer]:
    with OurServer("--in-flight", "8", "--body-mb", "1", "--seconds", "30", "--modules", "numpy") as running:
        assert "serving on http://127.0.0.1:" in running.first_line, running.first_line
        yield running


def run(server: OurServer, code: str, **fields) -> RunCodeResponse:
    request = RunCodeRequest(code=code, language="python", **fields)
    return sandbox_fusion.run_code(request, endpoint=server.url, max_attempts=1, client_timeout=60)


def post(server: OurServer, path: str, body: object, **headers: str) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(server.url + path, data=data, headers=headers, timeout=60)


def test_the_official_client_gets_what_sandbox_fusion_would_give(server):
    hello = run(server, "print('hello')")
    assert (hello.status, hello.message, hello.compile_result, hello.executor_pod_name, hello.files) == ("Success", "", None, None, {})
    assert hello.run_result is not None
    assert (hello.run_result.status, hello.run_result.return_code, hello.run_result.stdout, hello.run_result.stderr) == (
        "Finished",
        0,
        "hello\n",
        "",
    )
    assert hello.run_result.execution_time is not None
    echo = run(server, "print(input()[::-1]); print(input())", stdin="abc\nüber\n").run_result
    assert echo is not None
    assert echo.stdout == "cba\nüber\n"


@pytest.mark.parametrize(
    ("code", "return_code", "said"),
    [
        ("import sys\nsys.exit(3)", 3, ""),
        ("import sys\nsys.exit('no good')", 1, "no good"),
        ("def g():\n    return 1 / 0\ng()", 1, 'File "main.py", line 2, in g'),
        ("print(1", 1, "SyntaxError"),
        ("raise SystemExit", 0, ""),
        ("assert 1 == 2", 1, "AssertionError"),
        ("import ctypes\nctypes.string_at(0)", -signal.SIGSEGV, ""),
        ("x = [0] * 10 ** 11", 1, "MemoryError"),
        ("open('/etc/passwd')", 1, "Error"),
        ("import os\nos.fork()", 1, "PermissionError"),
        ("import atexit\natexit.register(print, 'bye')\nimport os, sys\nsys.stdout.write('x')", 0, ""),
    ],
)
def test_a_script_ends_as_it_would_under_python(server, code, return_code, said):
    response = run(server, code)
    assert response.status == (RunStatus.Success if return_code == 0 else RunStatus.Failed)
    assert response.run_result is not None
    assert (response.run_result.status, response.run_result.return_code) == (CommandRunStatus.Finished, return_code)
    assert said in (response.run_result.stderr or "")
    assert "jailed" not in (response.run_result.stderr or "")


SLEEPERS = """import asyncio
async def worker(queue):
    await asyncio.sleep(0.01)
    await queue.put(await asyncio.to_thread(int, '3'))
async def main():
    queue = asyncio.Queue()
    async with asyncio.timeout(20):
        await asyncio.gather(*[worker(queue) for _ in range(5)])
    print(sum([queue.get_nowait() for _ in range(5)]))
asyncio.run(main())"""
READER = """import asyncio, sys
async def main():
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print((await reader.readline()).decode())
asyncio.run(main())"""
DEEP = """import sys, threading
sys.setrecursionlimit(10 ** 6)
threading.stack_size(1 << 27)
class Node:
    def __init__(self, below): self.below = below
    def __len__(self): return 0 if self.below is None else 1 + len(self.below)
def main():
    top = None
    for _ in range(60_000): top = Node(top)
    print(len(top))
t = threading.Thread(target=main)
t.start()
t.join()"""
POOL = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool: print(sum(pool.map(int, '123')))"
SUMMER = "import datetime, zoneinfo\nprint(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')))"


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        (SLEEPERS, "15\n"),
        (READER, "über\n\n"),
        (DEEP, "59999\n"),  # far deeper than the main thread's stack would bear
        (POOL, "6\n"),
        (SUMMER, "2024-07-01 00:00:00+02:00\n"),
        ("import uuid\nprint(uuid.uuid5(uuid.NAMESPACE_DNS, 'x'), uuid.uuid1().version)", "05b16a01-46c6-56dd-bd6e-c6dfb4a1427a 1\n"),
        ("import locale\nf = open(0)\nprint(locale.getpreferredencoding(), f.encoding, f.read())", "utf-8 utf-8 über\n\n"),
        ("import locale\nlocale.setlocale(locale.LC_ALL, '')\nprint(open('/dev/stdin').read(), file=open('/dev/stdout', 'w'))", "über\n\n"),
        ("import threading\nthreading.Timer(0.05, print, ['later']).start()\nprint('now')", "now\nlater\n"),
        ("print(__name__, __file__)", "__main__ main.py\n"),
    ],
)
def test_a_script_may_wait_draw_identifiers_and_start_threads(server, code, stdout):
    result = run(server, code, stdin="über\n").run_result
    assert (result.return_code, result.stdout) == (0, stdout), result.stderr


def test_a_time_limit_keeps_what_was_said_before(server):
    start = time.monotonic()
    late = run(server, "print('before', flush=True)\nimport time\ntime.sleep(25)", run_timeout=1)
    assert time.monotonic() - start < 10
    assert late.status == RunStatus.Failed
    assert late.run_result is not None
    assert (late.run_result.status, late.run_result.return_code, late.run_result.stdout) == ("TimeLimitExceeded", None, "before\n")


def test_output_is_never_cut_without_a_word(server):
    long = run(server, "print('x' * 3_000_000)")
    assert long.status == RunStatus.Success
    assert long.run_result is not None
    assert long.run_result.stdout == "x" * 3_000_000 + "\n"
    flood = run(server, "while True: print('x' * 10 ** 6)")
    assert flood.status == RunStatus.Failed
    assert "longer than" in flood.message


def test_input_that_is_long_or_not_read_is_no_trouble(server):
    assert run(server, "import sys\nprint(len(sys.stdin.read()))", stdin="x" * 900_000).run_result.stdout == "900000\n"
    assert run(server, "print(1)", stdin="x" * 900_000).run_result.stdout == "1\n"


def test_modules_that_the_server_was_given_can_be_imported_and_others_not(server):
    assert run(server, "import numpy\nprint(numpy.arange(3).sum())").run_result.stdout == "3\n"
    assert "ModuleNotFoundError" in run(server, "import torch").run_result.stderr


def test_the_official_helper_for_many_at_once_works(server):
    codes = [RunCodeRequest(code=f"print({k} ** 2)", language="python") for k in range(30)]
    results = sandbox_fusion.run_concurrent(
        sandbox_fusion.run_code,
        args=[[code] for code in codes],
        kwargs=[{"endpoint": server.url, "client_timeout": 60}] * 30,
        concurrency=6,
    )
    assert [result.run_result.stdout for result in results] == [f"{k**2}\n" for k in range(30)]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ({}, "code: field required"),
        ({"code": "print(1)"}, "language: field required"),
        ({"code": "print(1)", "language": "cobol"}, "language"),
        ({"code": "print(1)", "language": "bash"}, "runs python, not bash"),
        ({"code": "print(1)", "language": "python", "run_timeout": "soon"}, "run_timeout"),
        ({"code": "print(1)", "language": "python", "run_timeout": -1}, "run_timeout: expected seconds above 0, at most 30"),
        ({"code": "print(1)", "language": "python", "run_timeout": float("nan")}, "run_timeout"),
        ({"code": "print(1)", "language": "python", "run_timeout": 31}, "run_timeout"),
        ({"code": "print(1)", "language": "python", "memory_limit_MB": 10**6}, "memory_limit_MB: at most 2048"),
        ({"code": "print(1)", "language": "python", "files": {"../a": "eA=="}}, "no file system"),
        ({"code": "print(1)", "language": "python", "fetch_files": ["a"]}, "no file system"),
        ([1], "dict"),
    ],
)
def test_a_bad_script_request_is_422_and_says_what_is_wrong(server, body, says):
    answer = post(server, "/run_code", body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


LIMITS = {"wall_s": 5.0, "cpu_s": 5.0, "memory_mb": 256, "output_chars": 100}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"program": 1}, "program"),
        ({"inputs": []}, "inputs"),
        ({"inputs": "1"}, "inputs"),
        ({"inputs": [1]}, "inputs.0"),
        ({"limits": {**LIMITS, "wall_s": 0.0}}, "limits.wall_s"),
        ({"limits": {**LIMITS, "wall_s": 31.0}}, "limits.wall_s"),
        ({"limits": {**LIMITS, "cpu_s": 31.0}}, "limits.cpu_s"),
        ({"limits": {**LIMITS, "cpu_s": float("inf")}}, "limits.cpu_s"),
        ({"limits": {**LIMITS, "memory_mb": 4096}}, "limits.memory_mb"),
        ({"limits": {**LIMITS, "memory_mb": -1}}, "memory_mb=-1 is too small"),
        ({"limits": {**LIMITS, "output_chars": 0}}, "output_chars=0 is too small"),
        ({"limits": {}}, "limits.wall_s"),
        ({"gold": "7"}, "gold"),
    ],
)
def test_a_bad_request_of_calls_is_422_and_says_what_is_wrong(server, change, says):
    answer = post(server, "/v1/execute", {"program": "def f(x):\n    return x", "inputs": ["1"], "limits": LIMITS, **change})
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_a_body_too_large_is_413_and_an_unknown_path_404(server):
    assert post(server, "/run_code", b" " * (1 << 20) + b"{}").status_code == 413
    assert requests.get(server.url + "/nowhere", timeout=10).status_code == 404
    assert requests.get(server.url + "/run_code", timeout=10).status_code == 405
    assert requests.get(server.url + "/v1/ping", timeout=10).json() == "pong"


@pytest.mark.slow
def test_more_than_it_takes_at_once_is_429_and_the_others_are_served(server):
    slow = {"code": "import time\ntime.sleep(1.5)\nprint(1)", "language": "python"}
    with ThreadPoolExecutor(24) as threads:
        codes = list(threads.map(lambda _: post(server, "/run_code", slow), range(24)))
    kinds = [answer.status_code for answer in codes]
    assert set(kinds) == {200, 429}
    assert kinds.count(200) >= 8
    assert all(answer.headers["Retry-After"] == "1" for answer in codes if answer.status_code == 429)
    assert all(answer.json()["run_result"]["stdout"] == "1\n" for answer in codes if answer.status_code == 200)


def test_a_client_that_hangs_up_leaves_no_work_in_the_queue(server):
    body = json.dumps({"code": "import time\ntime.sleep(2)", "language": "python"}).encode()
    for _ in range(6):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
            connection.sendall(b"POST /run_code HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    start = time.monotonic()
    assert run(server, "print(1)").run_result.stdout == "1\n"
    assert time.monotonic() - start < 4.5  # two workers may be sleeping; the other four requests are forgotten


def test_metrics_count_what_was_asked(server):
    def value(name: str) -> float:
        text = requests.get(server.url + "/metrics", timeout=10).text
        return sum(float(number) for number in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE))

    calls, scripts = value('azr_sandbox_outcomes_total{status="ok"}'), value('azr_sandbox_scripts_total{status="finished"}')
    run(server, "print(1)")
    answer = post(server, "/v1/execute", {"program": "def f(x):\n    return x", "inputs": ["1", "2"], "limits": LIMITS})
    assert [row[:2] for row in answer.json()["outcomes"]] == [["ok", "1"], ["ok", "2"]]
    assert value('azr_sandbox_outcomes_total{status="ok"}') == calls + 2
    assert value('azr_sandbox_scripts_total{status="finished"}') == scripts + 1
    assert value("azr_sandbox_in_flight") == 0


def test_a_worker_killed_from_outside_costs_no_answer(server):
    children = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(int(pid)) == server.process.pid]
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(run, server, "import time\ntime.sleep(1)\nprint(1)") for _ in range(4)]
        time.sleep(0.4)
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        assert [answer.result().run_result.stdout for answer in answers] == ["1\n"] * 4


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


@pytest.mark.slow
def test_a_token_guards_everything_but_the_ping():
    with OurServer(environment={"AZR_NEMO_SANDBOX_TOKEN": "sesame"}) as server:
        script = {"code": "print(1)", "language": "python"}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic !"}, {"Authorization": "sesame"}):
            assert post(server, "/run_code", script, **headers).status_code == 401
        for path in ("/metrics", "/v1/info"):
            assert requests.get(server.url + path, timeout=10).status_code == 401
        assert requests.get(server.url + "/v1/ping", timeout=10).status_code == 200
        assert post(server, "/run_code", script, Authorization="Bearer sesame").status_code == 200
        with_password = server.url.replace("http://", "http://any:sesame@")
        response = sandbox_fusion.run_code(RunCodeRequest(code="print(1)", language="python"), endpoint=with_password, max_attempts=1)
        assert response.run_result.stdout == "1\n"


@pytest.mark.slow
def test_stopping_answers_what_is_in_flight_and_leaves_nothing():
    with OurServer() as server:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(run(server, "import time\ntime.sleep(1.5)\nprint(1)")))
        asking.start()
        time.sleep(0.7)
        status, said = server.stop()
        asking.join(30)
        assert (status, said) == (0, "stopped\n")
        assert [answer.run_result.stdout for answer in answers] == ["1\n"]


@pytest.mark.slow
def test_what_cannot_be_served_is_one_sentence_and_exit_status_2():
    with OurServer() as server:
        port = server.url.rpartition(":")[2]
        for options, says in (
            (("--port", port), "cannot listen there: Address already in use"),
            (("--host", "0.0.0.0"), "lets other machines run programs here"),
            (("--host", "no.such.host.invalid"), "no such address"),
            (("--modules", "no_such_module"), "no_such_module is not an installed package"),
        ):
            with OurServer(*options) as refused:
                assert refused.process.wait(30) == 2
                assert says in refused.first_line


def test_only_loopback_is_this_machine():
    assert is_this_machine("127.0.0.1")
    assert is_this_machine("::1")
    assert not is_this_machine("0.0.0.0")
