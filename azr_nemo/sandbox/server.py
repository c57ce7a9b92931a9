"""`azr-nemo sandbox serve`: the jailed pool behind HTTP, in the place of a Sandbox-Fusion server.

POST /run_code and GET /v1/ping are Sandbox-Fusion's, for Python and without files: a program here has no file system. POST /v1/execute takes the
executor's own requests, so that outcomes are those of a local pool. GET /v1/info says what serves, GET /metrics how much, as Prometheus text.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sandbox_fusion.models import CommandRunResult, CommandRunStatus, RunCodeResponse, RunStatus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from azr_nemo.errors import UserError
from azr_nemo.sandbox import executor
from azr_nemo.sandbox.endpoint import RunCode
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Script, ScriptResult, ScriptStatus
from azr_nemo.sandbox.local.pool import LocalPool

BODY_S = 30.0  # for a request's body to arrive
GRACE_S = 30  # for requests in flight when the server is stopped
Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """What a server grants. token: what clients must show, None for nobody's. in_flight: requests at once, beyond which it answers 429. body_bytes:
    largest body, beyond which 413. seconds, memory_mb: most that a request may ask for; the memory is also a script's that asks for none.
    stream_bytes: longest standard output of a script."""

    token: str | None = None
    in_flight: int = 256
    body_bytes: int = 8 << 20
    seconds: float = 300.0
    memory_mb: int = 2048
    stream_bytes: int = 4 << 20


class ExecuteLimits(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    wall_s: float
    cpu_s: float
    memory_mb: int
    output_chars: int


class Execute(BaseModel):
    """The body of POST /v1/execute: an `executor.Request`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    program: str
    inputs: list[str] = Field(min_length=1, max_length=10_000)
    deterministic: bool = False
    limits: ExecuteLimits


class Server:
    """The handlers over one pool, and their counts."""

    def __init__(self, pool: LocalPool, service: Service):
        self.pool, self.service = pool, service
        self.registry = CollectorRegistry()
        self._requests = Counter("azr_sandbox_requests", "answers by path and HTTP status", ["path", "code"], registry=self.registry)
        self._outcomes = Counter("azr_sandbox_outcomes", "calls of f by outcome", ["status"], registry=self.registry)
        self._scripts = Counter("azr_sandbox_scripts", "scripts by how they ended", ["status"], registry=self.registry)
        self._seconds = Histogram("azr_sandbox_request_seconds", "from body to answer", ["path"], registry=self.registry)
        self._in_flight = 0
        gauge = Gauge("azr_sandbox_in_flight", "requests being executed or waiting for a worker", registry=self.registry)
        gauge.set_function(lambda: self._in_flight)

    def app(self) -> Starlette:
        """The ASGI application; it closes the pool when it stops."""
        return Starlette(
            routes=[
                Route("/run_code", self._counted(self._guarded(self._executing(self.run_code))), methods=["POST"]),
                Route("/v1/execute", self._counted(self._guarded(self._executing(self.execute))), methods=["POST"]),
                Route("/v1/ping", self.ping, methods=["GET"]),
                Route("/v1/info", self._counted(self._guarded(self.info)), methods=["GET"]),
                Route("/metrics", self._guarded(self.metrics), methods=["GET"]),
            ],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _problem},
        )

    async def run_code(self, request: Request) -> Response:
        """Sandbox-Fusion's: a script's streams and return code."""
        body = await self._body(request)
        try:
            asked = RunCode.parse_obj(body)
        except ValueError as error:
            raise HTTPException(422, _reasons(error)) from None
        if asked.language != "python":
            raise HTTPException(422, f"language: this server runs python, not {asked.language}")
        if asked.files or asked.fetch_files:
            raise HTTPException(422, "files, fetch_files: programs on this server have no file system")
        memory_mb = asked.memory_limit_MB if asked.memory_limit_MB > 0 else self.service.memory_mb
        self._grant({"run_timeout": asked.run_timeout}, {"memory_limit_MB": memory_mb})
        limits = _limits("run_timeout, memory_limit_MB", asked.run_timeout, asked.run_timeout, memory_mb)
        script = Script(asked.code, asked.stdin or "", limits, self.service.stream_bytes)
        try:
            result = await _unless_gone(request, self.pool.submit_script(script))
        except ExecutorUnavailable as error:
            return JSONResponse(_as_json(RunCodeResponse(status=RunStatus.SandboxError, message=str(error))))
        self._scripts.labels(result.status).inc()
        return JSONResponse(_as_json(_response(result, self.service)))

    async def execute(self, request: Request) -> Response:
        """Ours: one outcome per input."""
        try:
            asked = Execute.model_validate(await self._body(request))
        except ValidationError as error:
            raise HTTPException(422, _reasons(error)) from None
        bounds = asked.limits
        self._grant({"limits.wall_s": bounds.wall_s, "limits.cpu_s": bounds.cpu_s}, {"limits.memory_mb": bounds.memory_mb})
        limits = _limits("limits", bounds.wall_s, bounds.cpu_s, bounds.memory_mb, bounds.output_chars)
        work = executor.Request(asked.program, tuple(asked.inputs), limits, asked.deterministic)
        try:
            outcomes = await _unless_gone(request, self.pool.submit(work))
        except ExecutorUnavailable as error:
            raise HTTPException(503, str(error)) from None
        for outcome in outcomes:
            self._outcomes.labels(outcome.status).inc()
        rows = [[outcome.status, outcome.value, outcome.error, outcome.cpu_s, outcome.wall_s] for outcome in outcomes]
        return JSONResponse({"outcomes": rows})

    async def ping(self, request: Request) -> Response:
        return JSONResponse("pong")

    async def info(self, request: Request) -> Response:
        return JSONResponse({"server": "azr-nemo", "version": version("azr-nemo"), "executor": self.pool.describe()})

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    def _counted(self, handler: Handler) -> Handler:
        async def counted(request: Request) -> Response:
            start, code = time.perf_counter(), 500
            try:
                response = await handler(request)
                code = response.status_code
                return response
            except HTTPException as error:
                code = error.status_code
                raise
            except ClientDisconnect:
                code = 499  # nobody reads the answer
                return Response(status_code=code)
            finally:
                self._requests.labels(request.url.path, code).inc()
                self._seconds.labels(request.url.path).observe(time.perf_counter() - start)

        return counted

    def _guarded(self, handler: Handler) -> Handler:
        """Asks for the token: as a bearer's, or as the password of basic authentication, which every HTTP client takes from a URL."""

        async def guarded(request: Request) -> Response:
            if self.service.token and not _shows(request.headers.get("authorization", ""), self.service.token):
                raise HTTPException(401, "this server wants its token", {"WWW-Authenticate": "Bearer"})
            return await handler(request)

        return guarded

    def _executing(self, handler: Handler) -> Handler:
        """Refuses what would have to wait too long. So the pool's queue is never full, and nothing here blocks."""

        async def executing(request: Request) -> Response:
            if self._in_flight >= self.service.in_flight:
                raise HTTPException(429, f"{self.service.in_flight} requests are being executed: try again", {"Retry-After": "1"})
            self._in_flight += 1
            try:
                return await handler(request)
            finally:
                self._in_flight -= 1

        return executing

    async def _body(self, request: Request) -> Any:
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                async for part in request.stream():
                    data += part
                    if len(data) > self.service.body_bytes:
                        raise HTTPException(413, f"the body is larger than {self.service.body_bytes} bytes")
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {BODY_S:.0f} s") from None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise HTTPException(422, "the body is not JSON") from None

    def _grant(self, seconds: dict[str, float], memory_mb: dict[str, int]) -> None:
        """Refuses more than this server grants; what no executor takes is refused by the limits themselves."""
        for name, asked in seconds.items():
            if not 0 < asked <= self.service.seconds:
                raise HTTPException(422, f"{name}: expected seconds above 0, at most {self.service.seconds:g} on this server")
        for name, asked in memory_mb.items():
            if asked > self.service.memory_mb:
                raise HTTPException(422, f"{name}: at most {self.service.memory_mb} on this server")

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.pool.close)


def serve(pool: LocalPool, service: Service, host: str, port: int, say: Callable[[str], None] = print) -> None:
    """Serves until SIGTERM or SIGINT, then answers what is in flight and stops. Port 0 takes a free one. Raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        pool.close()
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error.strerror or error}") from None
    config = uvicorn.Config(
        Server(pool, service).app(),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
        lifespan="on",
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn stops at them and then raises them anew
        signal.signal(number, lambda *_: None)
    address = f"[{host}]" if ":" in host else host
    say(f"serving on http://{address}:{listening.getsockname()[1]} ({pool.describe()})")
    uvicorn.Server(config).run(sockets=[listening])
    say("stopped")


def is_this_machine(host: str) -> bool:
    """Whether nobody else can reach an address."""
    try:
        return all(ipaddress.ip_address(str(found[4][0])).is_loopback for found in socket.getaddrinfo(host, None))
    except OSError:
        raise UserError(f"--host {host}: no such address; 127.0.0.1 is this machine alone, 0.0.0.0 every network it is on") from None


async def _unless_gone(request: Request, future: Future[T]) -> T:
    """The future's result; drops it when the client hangs up before it began."""
    result = asyncio.wrap_future(future)
    gone = asyncio.create_task(_hung_up(request))
    gone.add_done_callback(lambda _: result.cancel())
    try:
        return await result
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        gone.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def _limits(name: str, *bounds: Any) -> Limits:
    try:
        return Limits(*bounds)
    except UserError as error:
        raise HTTPException(422, f"{name}: {error}") from None


def _reasons(error: Any) -> str:
    """What a validation found, in one line."""
    return "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors()[:5])


def _shows(header: str, token: str) -> bool:
    scheme, _, shown = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            shown = base64.b64decode(shown, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.encode(), token.encode())


def _response(result: ScriptResult, service: Service) -> RunCodeResponse:
    timed_out, flooded = result.status is ScriptStatus.TIMEOUT, result.status is ScriptStatus.FLOODED
    run = CommandRunResult(
        status=CommandRunStatus.TimeLimitExceeded if timed_out else CommandRunStatus.Finished, execution_time=result.wall_s, cpu_time=result.cpu_s,
        return_code=result.return_code, stdout=result.stdout, stderr=result.stderr,
    )  # fmt: skip
    message = f"the script was ended: its output is longer than {service.stream_bytes} bytes" if flooded else ""
    status = RunStatus.Success if result.status is ScriptStatus.FINISHED and result.return_code == 0 else RunStatus.Failed
    return RunCodeResponse(status=status, message=message, run_result=run)


def _as_json(response: RunCodeResponse) -> Any:
    return json.loads(response.json())
