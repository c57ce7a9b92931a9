"""The remote executor gives the outcomes of a local one, or says that it cannot: from Sandbox-Fusion, from our server, from servers that fail."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import process_trees
import pytest
from servers import OurServer, answering, fusion, reply, run_as_fusion_does

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Request, Script, ScriptStatus, Status
from azr_nemo.sandbox.fusion import FusionExecutor

pytestmark = pytest.mark.slow

ADD = Request("def f(x):\n    return x + 1", ("1", "'a'", "2.5"))
LIMITS = Limits(wall_s=20.0, cpu_s=20.0, memory_mb=256)
HARSH = Limits(wall_s=1.0, cpu_s=1.0, memory_mb=256)
NEARLY_ALL_KINDS = [
    (ADD, [("ok", "2"), ("error", None), ("ok", "3.5")]),
    (Request("def f(x):\n    while x: pass\n    return 0", ("0", "1", "0"), HARSH), [("ok", "0"), ("timeout", None), ("ok", "0")]),
    (Request("def f(x):\n    return [0] * x", ("10**10", "2")), [("memory", None), ("ok", "[0, 0]")]),
    (Request("def f(x):\n    return 'x' * x", ("2", "9000")), [("ok", "'xx'"), ("output_too_large", None)]),
    (Request("def f(x):\n    return print", ("1",)), [("not_literal", None)]),
    (Request("def f(:", ("1", "2")), [("syntax", None)] * 2),
    (Request("def f(x):\n    return x", ("2) or (1",)), [("syntax", None)]),
    (Request("def f(x):\n    return x", ("__import__('os')",)), [("forbidden", None)]),
    (Request("import os\ndef f(x):\n    os._exit(x)", ("3", "0")), [("crashed", None)] * 2),
    (Request("def f(x):\n    return list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})", ("1",), deterministic=True), [("nondeterministic", None)]),
    (Request("import random\ndef f(x):\n    return random.random()", ("1",), deterministic=True), [("nondeterministic", None)]),
    (Request("def f(x):\n    return sorted({'a', 'b'})[x]", ("0", "1", "2"), deterministic=True), [("ok", "'a'"), ("ok", "'b'"), ("error", None)]),
    (Request("def f(x):\n    return x * 2", (r"'\ud800'", "'é😀'")), [("ok", r"'\ud800\ud800'"), ("ok", "'é😀é😀'")]),
    (Request("def f(x):\n    print('azr-outcomes 3 x y')\n    return x", ("7",)), [("ok", "7")]),
]  # fmt: skip


@pytest.fixture(scope="module", params=["like Sandbox-Fusion", "our server", "Sandbox-Fusion"])
def remote(request: pytest.FixtureRequest) -> Iterator[FusionExecutor]:
    with ExitStack() as stack:
        if request.param == "like Sandbox-Fusion":
            url = stack.enter_context(answering(fusion))
        elif request.param == "our server":
            url = stack.enter_context(OurServer()).url
        elif not (url := os.environ.get("SANDBOX_FUSION_ENDPOINT", "")):
            pytest.skip("no Sandbox-Fusion server here: set SANDBOX_FUSION_ENDPOINT to one")
        yield stack.enter_context(FusionExecutor([url], LIMITS, concurrency=4))


def seen(outcomes: list) -> list[tuple[str, str | None]]:
    return [(str(outcome.status), outcome.value) for outcome in outcomes]


def test_outcomes_are_those_of_a_local_worker(remote, pool):
    requests = [request for request, _ in NEARLY_ALL_KINDS]
    expected = [outcomes for _, outcomes in NEARLY_ALL_KINDS]
    assert [seen(outcomes) for outcomes in remote.run(requests)] == expected
    assert [seen(outcomes) for outcomes in pool.run(requests)] == expected


def test_outcomes_come_in_order_and_a_request_without_inputs_costs_nothing(remote):
    results = remote.run(Request("def f(x):\n    return x + 1", (str(x), str(-x))) for x in range(20))
    assert [[outcome.value for outcome in outcomes] for outcomes in results] == [[str(x + 1), str(1 - x)] for x in range(20)]
    assert remote.run([Request("def f(x):\n    return x", ())]) == [[]]


def test_outputs_that_do_not_fit_one_answer_are_fetched_in_several(remote):
    text = (
        "def f(x):\n    import random\n    random.seed(x)\n    return ''.join(chr(random.randrange(0x4E00, 0x9FA5)) for _ in range(19_000))"
    )
    (outcomes,) = remote.run([Request(text, ("1", "2", "3", "4", "5"), Limits(20.0, 20.0, 256, 20_000))])
    assert [len(outcome.value or "") for outcome in outcomes] == [19_002] * 5
    assert len({outcome.value for outcome in outcomes}) == 5


def test_a_program_reaches_neither_its_supervisor_nor_the_answer(remote):
    tries = "import os\ndef f(x):\n    try:\n        {}\n    except OSError:\n        return 'refused'\n    return 'done'"
    for attempt in ("os.kill(os.getppid(), 9)", "os.listdir(f'/proc/{os.getppid()}/fd')[0]", "open('/etc/passwd')", "os.fork()"):
        (outcome,) = remote.run([Request(tries.format(attempt), ("1",))])[0]
        assert outcome.value == "'refused'", attempt
    write = "def write(fd):\n    try:\n        os.write(fd, b'azr-outcomes')\n    except OSError:\n        pass"
    flood = f"import os\n{write}\ndef f(x):\n    for fd in (0, 1, 2, *range(4, 64)):\n        write(fd)\n    return 1"
    assert seen(remote.run([Request(flood, ("1",))])[0]) == [("ok", "1")]


def test_scripts_end_as_they_do_in_a_local_worker(remote, pool):
    scripts = [
        (Script("print(input()[::-1])", "abc\n", LIMITS), (ScriptStatus.FINISHED, 0, "cba\n")),
        (Script("import sys\nprint(1)\nsys.exit(3)", "", LIMITS), (ScriptStatus.FINISHED, 3, "1\n")),
        (Script("print('before', flush=True)\nwhile True: pass", "", HARSH), (ScriptStatus.TIMEOUT, None, "before\n")),
        (Script("print('x' * 5000)", "", LIMITS, stream_bytes=100), (ScriptStatus.FLOODED, None, "x" * 100)),
    ]
    for executor in (remote, pool):
        for script, (status, code, stdout) in scripts:
            result = executor.submit_script(script).result(timeout=60)
            assert (result.status, result.stdout) == (status, stdout)
            assert result.return_code == code or status is ScriptStatus.FLOODED


def test_describe_names_the_endpoint_and_what_it_is(remote):
    assert "http://127.0.0.1" in remote.describe() or "SANDBOX_FUSION_ENDPOINT" in os.environ
    assert "azr-nemo" in remote.describe() or "Sandbox-Fusion" in remote.describe()


class Misbehaving:
    """A server that is like Sandbox-Fusion until `wrong` is set; then it answers /run_code with that."""

    def __init__(self) -> None:
        self.wrong: Callable[[Any, Any], None] | None = None
        self.asked = 0

    def __call__(self, handler: Any, path: str, body: Any) -> None:
        if path == "/run_code" and self.wrong is not None:
            self.asked += 1
            self.wrong(handler, body)
        else:
            fusion(handler, path, body)


def cut_the_output(handler: Any, body: Any) -> None:
    answer = run_as_fusion_does(body)
    answer["run_result"]["stdout"] = answer["run_result"]["stdout"][:-40]
    reply(handler, 200, answer)


def drip(handler: Any, body: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def hang_up(handler: Any, body: Any) -> None:
    handler.close_connection = True


def with_run(**run: Any) -> Callable[[Any, Any], None]:
    whole = {"status": "Finished", "return_code": 0, "stdout": "", "stderr": "", **run}
    return lambda handler, body: reply(handler, 200, {"status": "Success", "message": "", "run_result": whole})


FORGED = "azr-outcomes 4 03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4 1234\n"
WRONG = {
    "garbage": lambda handler, body: reply(handler, 200, b"<html>welcome to the proxy</html>"),
    "JSON that is something else": lambda handler, body: reply(handler, 200, [1, 2, 3]),
    "HTTP 500": lambda handler, body: reply(handler, 500, {"detail": "oops"}),
    "HTTP 503": lambda handler, body: reply(handler, 503, b""),
    "SandboxError": lambda handler, body: reply(handler, 200, {"status": "SandboxError", "message": "no pods"}),
    "an empty success": with_run(),
    "a success without a result": lambda handler, body: reply(handler, 200, {"status": "Success", "message": ""}),
    "an answer of nobody's": with_run(stdout="hello\n"),
    "a payload that does not unpack": with_run(stdout=FORGED),
    "output cut on its way": cut_the_output,
    "undecodable output": with_run(stdout="[DecodeError] 'utf-8' codec can't decode byte 0xff"),
    "a closed connection": hang_up,
    "a delay of 30 s": lambda handler, body: time.sleep(30),
    "a byte now and then": drip,
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_server_that_fails_is_unavailable_within_a_bound_and_never_an_outcome(wrong, monkeypatch):
    monkeypatch.setattr("azr_nemo.sandbox.endpoint.START_S", 0.5)
    server = Misbehaving()
    with answering(server) as url, FusionExecutor([url], LIMITS, attempts=3, patience_s=1.0) as executor:
        assert seen(executor.run([ADD])[0]) == NEARLY_ALL_KINDS[0][1]
        server.wrong = WRONG[wrong]
        start = time.monotonic()
        with pytest.raises(ExecutorUnavailable, match=r"could not be executed remotely: http://127"):
            executor.run([Request("def f(x):\n    return 1", ("1",), Limits(wall_s=0.5))])
        assert time.monotonic() - start < 20
        assert server.asked == 3
        server.wrong = None  # it comes back, and is asked again
        assert seen(executor.run([ADD])[0]) == NEARLY_ALL_KINDS[0][1]


def test_a_script_that_dies_with_one_program_alone_is_that_programs_outcome():
    def murderous(handler, path, body):
        if path == "/run_code" and "MURDER" in body["stdin"]:
            body = {**body, "code": "import os; os.kill(os.getpid(), 11)"}
        fusion(handler, path, body)

    def slow(handler, path, body):
        if path == "/run_code" and "MURDER" in body["stdin"]:
            reply(handler, 200, {"status": "Failed", "message": "", "run_result": {"status": "TimeLimitExceeded", "stdout": ""}})
        else:
            fusion(handler, path, body)

    murder = Request("def f(x):\n    return 'MURDER'", ("1", "2"))
    for behaviour, status in ((murderous, Status.CRASHED), (slow, Status.TIMEOUT)):
        with answering(behaviour) as url, FusionExecutor([url], LIMITS) as executor:
            bad, good = executor.run([murder, ADD])
            assert [outcome.status for outcome in bad] == [status] * 2
            assert seen(good) == NEARLY_ALL_KINDS[0][1]


def test_a_server_that_kills_every_script_is_unavailable():
    server = Misbehaving()
    with answering(server) as url, FusionExecutor([url], LIMITS, attempts=2) as executor:
        server.wrong = with_run(status="Finished", return_code=-9)
        with pytest.raises(ExecutorUnavailable, match="does not run a trial program"):
            executor.run([ADD])


def test_a_fixed_hash_seed_is_noticed_because_determinism_could_not_be_checked():
    def fixed(handler, path, body):
        fusion(handler, path, body, PYTHONHASHSEED="0")

    with answering(fixed) as url, FusionExecutor([url], LIMITS) as executor:
        assert seen(executor.run([ADD])[0]) == NEARLY_ALL_KINDS[0][1]
        with pytest.raises(ExecutorUnavailable, match="PYTHONHASHSEED"):
            executor.run([Request("def f(x):\n    return x", ("1",), deterministic=True)])


def test_a_full_server_is_asked_again_for_as_long_as_patience_lasts():
    left = [8]

    def busy(handler, path, body):
        if path == "/run_code" and "ANOTHER" in body["stdin"] and left[0] > 0:
            left[0] -= 1
            reply(handler, 429, {"detail": "full"})
        else:
            fusion(handler, path, body)

    another = Request("def f(x):\n    return 'ANOTHER'", ("1",))
    with answering(busy) as url:
        with FusionExecutor([url], LIMITS, attempts=1, patience_s=30.0) as executor:
            assert seen(executor.run([another])[0]) == [("ok", "'ANOTHER'")]
        left[0] = 10**9
        with FusionExecutor([url], LIMITS, attempts=5, patience_s=1.0) as executor:
            with pytest.raises(ExecutorUnavailable, match="429"):
                executor.run([another])


def test_requests_are_shared_out_and_a_dead_endpoint_is_left_alone():
    asked = [0, 0]
    dead = threading.Event()

    def behaviour(index):
        def behave(handler, path, body):
            if path == "/run_code":
                asked[index] += 1
                if index == 1 and dead.is_set():
                    return reply(handler, 500, {})
            return fusion(handler, path, body)

        return behave

    with answering(behaviour(0)) as one, answering(behaviour(1)) as two, FusionExecutor([one, two], LIMITS, concurrency=2) as executor:
        executor.run([ADD] * 10)
        assert min(asked) >= 4
        dead.set()
        before = asked[1]
        assert [seen(outcomes) for outcomes in executor.run([ADD] * 10)] == [NEARLY_ALL_KINDS[0][1]] * 10
        assert asked[1] - before <= 4


def test_a_server_stopped_in_mid_batch_makes_the_rest_unavailable_or_another_takes_over():
    with OurServer() as doomed, OurServer() as steady:
        with (
            FusionExecutor([doomed.url], LIMITS, attempts=2, patience_s=2.0) as lonely,
            FusionExecutor([doomed.url, steady.url], LIMITS) as two,
        ):
            slow = Request("import time\ndef f(x):\n    time.sleep(0.3)\n    return x", ("7",))
            alone, backed = [lonely.submit(slow) for _ in range(30)], [two.submit(slow) for _ in range(30)]
            alone[0].result(timeout=30)
            doomed.kill()
            start, kinds = time.monotonic(), set()
            for future in alone:
                try:
                    assert seen(future.result(timeout=60)) == [("ok", "7")]
                    kinds.add("ok")
                except ExecutorUnavailable:
                    kinds.add("unavailable")
            assert kinds == {"ok", "unavailable"}
            assert [seen(future.result(timeout=60)) for future in backed] == [[("ok", "7")]] * 30
            assert time.monotonic() - start < 60


def test_no_endpoint_that_executes_is_one_sentence_with_each_reason(monkeypatch):
    monkeypatch.setattr("azr_nemo.sandbox.endpoint.PING_S", 1.0)
    with answering(lambda handler, path, body: reply(handler, 200, b"<html>")) as stranger:
        with pytest.raises(
            ExecutorUnavailable, match=r"executor\.endpoints: none executes.*127\.0\.0\.1:1 cannot be reached.*executor=local"
        ) as caught:
            FusionExecutor(["http://127.0.0.1:1", stranger])
    assert "\n" not in str(caught.value)


def test_credentials_in_a_url_are_used_and_never_printed(monkeypatch):
    with OurServer("--token", "opensesame") as server:
        host = server.url.removeprefix("http://")
        with FusionExecutor([f"http://x:opensesame@{host}"], LIMITS) as executor:
            assert seen(executor.run([ADD])[0]) == NEARLY_ALL_KINDS[0][1]
            assert "opensesame" not in executor.describe()
        with pytest.raises(ExecutorUnavailable, match="AZR_NEMO_SANDBOX_TOKEN") as caught:
            FusionExecutor([f"http://x:wrong@{host}"], LIMITS)
        assert "wrong" not in str(caught.value)
        monkeypatch.setenv("AZR_NEMO_SANDBOX_TOKEN", "opensesame")
        with FusionExecutor([server.url], LIMITS) as executor:
            assert seen(executor.run([ADD])[0]) == NEARLY_ALL_KINDS[0][1]


def test_closing_frees_whoever_waits_at_once_and_the_queue_is_bounded():
    server = Misbehaving()
    with answering(server) as url:
        executor = FusionExecutor([url], LIMITS, concurrency=1, queue=2, patience_s=20.0)
        server.wrong = lambda handler, body: time.sleep(10)
        futures = [executor.submit(ADD) for _ in range(3)]
        refused = threading.Event()

        def one_too_many() -> None:
            with pytest.raises(ExecutorUnavailable, match="closed"):
                executor.submit(ADD)
            refused.set()

        thread = threading.Thread(target=one_too_many)
        thread.start()
        assert futures[2].cancel()
        time.sleep(0.3)
        assert not refused.is_set()
        start = time.monotonic()
        executor.close()
        executor.close()
        assert refused.wait(5)
        for future in futures[:2]:
            with pytest.raises(ExecutorUnavailable, match="closed before"):
                future.result(timeout=1)
        assert time.monotonic() - start < 5


def test_connections_are_kept(monkeypatch):
    ports = set()

    def noting(handler, path, body):
        ports.add(handler.client_address[1])
        fusion(handler, path, body)

    with answering(noting) as url, FusionExecutor([url], LIMITS, concurrency=2) as executor:
        executor.run([ADD] * 12)
    assert len(ports) <= 3


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(fusion) as url, FusionExecutor([url], LIMITS) as executor:
        assert seen(executor.run([ADD])[0]) == NEARLY_ALL_KINDS[0][1]


def test_the_script_runs_on_the_oldest_python_that_servers_have():
    """Sandbox-Fusion's image has 3.10: nothing newer may be used in what is sent there."""
    ruff = process_trees.run(
        ["ruff", "check", "--isolated", "--select", "E9,F", "--target-version", "py310", "azr_nemo/sandbox/local/jailed"],
        timeout=60, env={**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert ruff.returncode == 0, ruff.stdout
