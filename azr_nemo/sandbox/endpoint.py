"""One remote server of programs, spoken to over HTTP: Sandbox-Fusion, or `azr-nemo sandbox serve`.

Both answer POST /run_code with a script's output. Ours also takes requests as they are, at POST /v1/execute; Sandbox-Fusion is sent `payload.script()`,
which supervises the calls over there and prints what came of each.
"""

import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from sandbox_fusion.models import CommandRunResult, CommandRunStatus, RunCodeRequest, RunCodeResponse, RunStatus

from azr_nemo.sandbox import payload
from azr_nemo.sandbox.executor import Limits, Outcome, Request, Script, ScriptResult, ScriptStatus, Status, confirmed

CONNECT_S = 5.0
PING_S = 10.0
LARGEST_ANSWER = 64 << 20
INTERPRETER_MB = 768  # address space of the interpreter and the supervisor, beside what a program may add
START_S = 5.0  # for the interpreter to start and the supervisor to compile
BODIES = {"Content-Type": "application/json", "Accept-Encoding": "identity"}  # nothing to decode

Rows = list[Outcome]


class EndpointFailed(Exception):
    """The server gave no usable answer. busy: it is well but full; final: asking again is of no use."""

    def __init__(self, reason: str, busy: bool = False, final: bool = False):
        super().__init__(reason)
        self.busy, self.final = busy, final


class RunCode(RunCodeRequest):
    """The official client's request, with the limit that it leaves out and the server knows."""

    memory_limit_MB: int = -1


class _SupervisorDied(Exception):
    """The script ended without an answer: the program brought it down, or the server did. outcome: what to say if it was the program."""

    def __init__(self, outcome: Outcome):
        super().__init__(outcome.error)
        self.outcome = outcome


class _TooLong(Exception):
    """The outcomes together are longer than the server's output may be."""


class Endpoint:
    """A server by its URL. Thread-safe. patience_s: how long an answer may take beyond the programs' own limits."""

    def __init__(self, url: str, session: requests.Session, token: str | None, patience_s: float):
        self.url, self.patience_s = url.rstrip("/"), patience_s
        self.name = (
            urlsplit(self.url)._replace(netloc=urlsplit(self.url).netloc.rpartition("@")[2]).geturl()
        )  # credentials are not for print
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.kind: str | None = None  # what `hello` found: "azr-nemo, ..." or "Sandbox-Fusion"
        self.failures, self.down_until = 0, 0.0

    def hello(self) -> None:
        """Finds out what answers here and that it executes right. Raises EndpointFailed."""
        status, body = self._ask("GET", "/v1/info", None, PING_S)
        if status == 200 and isinstance(body, dict) and body.get("server") == "azr-nemo":
            self.kind = f"azr-nemo, {str(body.get('executor', ''))[:200]}"
            return
        if status in (401, 403):
            self._refuse(status, body)
        status, body = self._ask("GET", "/v1/ping", None, PING_S)
        if status != 200:
            self._refuse(status, body)
        self._prove()
        self.kind = "Sandbox-Fusion"

    def execute(self, request: Request) -> list[Outcome]:
        """One outcome per input; the request carries its limits. Raises EndpointFailed."""
        assert request.limits is not None
        if self.kind is None:
            self.hello()
        if self.kind != "Sandbox-Fusion":
            return self._execute_natively(request, request.limits)
        inputs = list(request.inputs)
        if not request.deterministic:
            return self._run(request.program, inputs, request.limits, 1)[0]
        first, seeds = self._run(request.program, inputs, request.limits, 2)
        again = [text for text, outcome in zip(inputs, first, strict=True) if outcome.ok]
        if not again:
            return first
        second, others = self._run(request.program, again, request.limits, 1)
        if seeds & others:
            raise EndpointFailed(
                f"{self.name} runs every program under one PYTHONHASHSEED, so determinism cannot be checked: unset it there", final=True
            )
        confirmations = iter(second)
        return [confirmed(outcome, next(confirmations)) if outcome.ok else outcome for outcome in first]

    def run_script(self, script: Script) -> ScriptResult:
        """How a script ended. Sandbox-Fusion may cut what it printed after 128 KiB. Raises EndpointFailed."""
        if self.kind is None:
            self.hello()
        memory_mb = script.limits.memory_mb + (INTERPRETER_MB if self.kind == "Sandbox-Fusion" else 0)
        run = self._run_code(script.source, script.stdin, script.limits.wall_s, memory_mb)
        timed_out = run.status == CommandRunStatus.TimeLimitExceeded
        streams = run.stdout or "", run.stderr or ""
        flooded = max(map(len, streams)) > script.stream_bytes
        status = ScriptStatus.TIMEOUT if timed_out else ScriptStatus.FLOODED if flooded else ScriptStatus.FINISHED
        kept = [text[: script.stream_bytes] for text in streams]
        return ScriptResult(
            status, None if timed_out else run.return_code, kept[0], kept[1], run.cpu_time or 0.0, run.execution_time or 0.0
        )

    def _execute_natively(self, request: Request, limits: Limits) -> list[Outcome]:
        body = {
            "program": request.program, "inputs": list(request.inputs), "deterministic": request.deterministic,
            "limits": {"wall_s": limits.wall_s, "cpu_s": limits.cpu_s, "memory_mb": limits.memory_mb, "output_chars": limits.output_chars},
        }  # fmt: skip
        calls = len(request.inputs) * (3 if request.deterministic else 1)
        status, answer = self._ask("POST", "/v1/execute", body, calls * (limits.wall_s + 0.5) + self.patience_s)
        if status == 404:  # another server answers here now
            self.kind = None
        if status != 200:
            self._refuse(status, answer)
        try:
            return payload.read_outcomes(answer.get("outcomes") if isinstance(answer, dict) else None, len(request.inputs))
        except payload.Unreadable as error:
            raise EndpointFailed(f"{self.name} answered nonsense: {error}") from None

    def _run(self, program: str, inputs: Sequence[str], limits: Limits, runs: int) -> tuple[Rows, set[int]]:
        """The outcomes of some calls in as few scripts as do it, and the hash seeds that these had (as the hash of one text)."""
        try:
            return self._supervise(program, inputs, limits, runs)
        except _TooLong:
            if len(inputs) == 1:
                return [Outcome(Status.OUTPUT_TOO_LARGE, None, "the output is longer than the server passes on")], set()
        except _SupervisorDied as died:
            if len(inputs) == 1:
                return self._after_a_death(program, inputs, limits, runs, died)
        middle = len(inputs) // 2
        one, seeds = self._run(program, inputs[:middle], limits, runs)
        two, others = self._run(program, inputs[middle:], limits, runs)
        return one + two, seeds | others

    def _after_a_death(
        self, program: str, inputs: Sequence[str], limits: Limits, runs: int, died: _SupervisorDied
    ) -> tuple[Rows, set[int]]:
        """One more try; when the same call ends the script again while another program runs well, it is the program's doing."""
        try:
            return self._supervise(program, inputs, limits, runs)
        except _TooLong:
            return [Outcome(Status.OUTPUT_TOO_LARGE, None, "the output is longer than the server passes on")], set()
        except _SupervisorDied:
            self._prove()
            return [died.outcome], set()

    def _prove(self) -> None:
        """Runs a program whose outcomes are known. Raises EndpointFailed when they differ."""
        try:
            outcomes, _ = self._supervise("def f(x):\n    return [x, 6 * 7 // x]", ["2", "0"], Limits(wall_s=10.0), 1)
        except (_SupervisorDied, _TooLong) as error:
            raise EndpointFailed(f"{self.name} does not run a trial program: {error}") from None
        if [(outcome.status, outcome.value) for outcome in outcomes] != [(Status.OK, "[2, 21]"), (Status.ERROR, None)]:
            raise EndpointFailed(f"{self.name} runs a trial program wrongly: {outcomes[0].value or outcomes[0].error}")

    def _supervise(self, program: str, inputs: Sequence[str], limits: Limits, runs: int) -> tuple[Rows, set[int]]:
        """One script. Raises _SupervisorDied, _TooLong and EndpointFailed."""
        task = {
            "program": program, "inputs": list(inputs), "runs": runs, "wall_s": limits.wall_s, "cpu_s": limits.cpu_s,
            "memory_mb": limits.memory_mb, "output_chars": limits.output_chars, "filters": payload.filters(),
        }  # fmt: skip
        seconds = runs * len(inputs) * (limits.wall_s + 0.5) + START_S
        run = self._run_code(payload.script(), json.dumps(task), seconds, limits.memory_mb + INTERPRETER_MB)
        try:
            answer = payload.read_answer(run.stdout or "")
            if "too_long" in answer:
                raise _TooLong
            return payload.read_outcomes(answer.get("results"), len(inputs)), {payload.read_seed(answer)}
        except payload.Unreadable as error:
            if run.status == CommandRunStatus.TimeLimitExceeded:
                raise _SupervisorDied(Outcome(Status.TIMEOUT, None, "the server's time limit was reached")) from None
            if run.return_code == 0:  # it said all it had to say, and that was lost
                raise EndpointFailed(f"{self.name} lost the output: {error}") from None
            kind = Status.MEMORY if run.return_code == -9 else Status.CRASHED
            last_words = (run.stderr or "").strip().splitlines()[-1:] or ["without a word"]
            raise _SupervisorDied(Outcome(kind, None, f"the script ended with {run.return_code}: {last_words[0][:150]}")) from None

    def _run_code(self, code: str, stdin: str, seconds: float, memory_mb: int) -> CommandRunResult:
        """POST /run_code: how the script ended. Raises EndpointFailed."""
        request = RunCode(
            language="python", code=code, stdin=stdin, run_timeout=seconds, compile_timeout=seconds, memory_limit_MB=memory_mb
        )  # fmt: skip
        status, body = self._ask("POST", "/run_code", request.dict(), seconds + self.patience_s)
        if status != 200:
            self._refuse(status, body)
        try:
            response = RunCodeResponse.parse_obj(body)
        except ValueError:
            raise EndpointFailed(f"{self.name} answered nonsense: not a Sandbox-Fusion response") from None
        run = response.run_result
        if response.status == RunStatus.SandboxError or run is None or run.status == CommandRunStatus.Error:
            raise EndpointFailed(f"{self.name} reports an error of its own: {(response.message or 'without a word')[:200]}")
        return run

    def _ask(self, method: str, path: str, body: Any, seconds: float) -> tuple[int, Any]:
        """The status and the JSON of an answer (its text where it is no JSON), all of it here within `seconds`. Raises EndpointFailed."""
        until = time.monotonic() + seconds
        data = bytearray()
        try:
            response = self._session.request(
                method, self.url + path, headers={**self._headers, **BODIES}, stream=True, allow_redirects=False,
                data=None if body is None else json.dumps(body).encode(), timeout=(min(CONNECT_S, seconds), seconds),
            )  # fmt: skip
            with response:
                while part := _part(response.raw):
                    data += part
                    if len(data) > LARGEST_ANSWER:
                        raise EndpointFailed(f"{self.name} answered more than {LARGEST_ANSWER >> 20} MiB")
                    if time.monotonic() > until:
                        raise EndpointFailed(f"{self.name} did not answer within {seconds:.0f} s")
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise EndpointFailed(f"{self.name} did not answer within {seconds:.0f} s") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise EndpointFailed(f"{self.name} cannot be reached ({type(error).__name__})") from None
        text = data.decode("utf-8", "replace")
        try:
            return response.status_code, json.loads(text)
        except (ValueError, RecursionError):
            return response.status_code, text

    def _refuse(self, status: int, body: Any) -> None:
        detail = body.get("detail") if isinstance(body, dict) else body
        said = f": {str(detail)[:200]}" if detail else ""
        if status in (401, 403):
            raise EndpointFailed(f"{self.name} wants another token (HTTP {status}): set AZR_NEMO_SANDBOX_TOKEN to the server's", final=True)
        raise EndpointFailed(f"{self.name} answered HTTP {status}{said}", busy=status == 429, final=status in (413, 422))


def _part(raw: Any) -> bytes:
    """What has arrived of a body, at least a byte, waiting for no more than that; nothing at its end."""
    if hasattr(raw, "read1"):
        return raw.read1(1 << 16)
    part = raw._fp.read1(1 << 16)  # urllib3 1.26, which the extra [launch] brings along: its own `read` waits until all 64 KiB are there
    if not part:
        raw.release_conn()  # the session's next request goes over the same connection
    return part
