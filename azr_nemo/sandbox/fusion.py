"""The remote executor: one or several Sandbox-Fusion servers (or `azr-nemo sandbox serve`), in turn, behind one bounded queue."""

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState as Attempt
from tenacity import (
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential_jitter,
    wait_random,
)

from azr_nemo.sandbox.endpoint import Endpoint, EndpointFailed
from azr_nemo.sandbox.executor import Executor, ExecutorUnavailable, Limits, Outcome, Request, Script, ScriptResult

LONGEST_PAUSE_S = 30.0  # that an endpoint is left alone after it failed
TOKEN_VARIABLE = "AZR_NEMO_SANDBOX_TOKEN"


class FusionExecutor(Executor):
    """Executes on remote servers.

    endpoints: URLs, asked in turn; one that fails is left alone for a while. limits: for requests without their own. concurrency: requests in flight.
    queue: requests that may wait. attempts: how often a request is tried, on one endpoint after the other, before its future raises
    ExecutorUnavailable. patience_s: how long an answer may take beyond the programs' own limits; a server that is full is asked again for as long.
    The token of a guarded server is taken from the environment (AZR_NEMO_SANDBOX_TOKEN), proxies are not.

    Raises ExecutorUnavailable when no endpoint executes a trial program. Callbacks of futures may submit more and are then never blocked.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        limits: Limits = Limits(),
        concurrency: int = 16,
        queue: int = 1024,
        attempts: int = 5,
        patience_s: float = 30.0,
    ):
        self.limits, self.queue, self.attempts, self.patience_s = limits, queue, attempts, patience_s
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_connections=len(endpoints), pool_maxsize=concurrency)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        token = os.environ.get(TOKEN_VARIABLE)
        self._endpoints = [Endpoint(url, self._session, token, patience_s) for url in endpoints]
        self._next = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[tuple[Request | Script, Future[Any]]] = deque()
        self._running: set[Future[Any]] = set()
        self._closing = threading.Event()
        self._greet()
        self._threads = [threading.Thread(target=self._serve, name=f"fusion-{index}", daemon=True) for index in range(concurrency)]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request) -> Future[list[Outcome]]:
        """See `Executor.submit`. Raises ExecutorUnavailable when the executor is closed."""
        if request.limits is None:
            request = replace(request, limits=self.limits)
        return self._enqueue(request)

    def submit_script(self, script: Script) -> Future[ScriptResult]:
        """See `Executor.submit_script`."""
        return self._enqueue(script)

    def _enqueue(self, request: Request | Script) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            while len(self._waiting) >= self.queue and not self._closing.is_set() and threading.current_thread() not in self._threads:
                self._changed.wait()
            if self._closing.is_set():
                raise ExecutorUnavailable("the executor is closed")
            self._waiting.append((request, future))
            self._changed.notify_all()
        return future

    def describe(self) -> str:
        """See `Executor.describe`."""
        found = ", ".join(f"{endpoint.name} ({endpoint.kind or 'does not answer'})" for endpoint in self._endpoints)
        return f"remote executor: {found}; {len(self._threads)} requests at once"

    def close(self) -> None:
        """See `Executor.close`. What runs on a server meanwhile ends there by its own limits."""
        self._closing.set()
        with self._lock:
            left = [future for _, future in self._waiting if future.set_running_or_notify_cancel()] + list(self._running)
            self._waiting.clear()
            self._changed.notify_all()
        for future in left:
            _settle(future, ExecutorUnavailable("the executor was closed before this program ran"))
        self._session.close()

    def _greet(self) -> None:
        """Asks every endpoint what it is, all at once."""

        def greet(endpoint: Endpoint) -> str | None:
            try:
                endpoint.hello()
            except EndpointFailed as error:
                self._failed(endpoint)
                return str(error)
            return None

        with ThreadPoolExecutor(len(self._endpoints)) as threads:
            reasons = list(threads.map(greet, self._endpoints))
        if None not in reasons:
            self._session.close()
            raise ExecutorUnavailable(
                f"executor.endpoints: none executes programs ({'; '.join(filter(None, reasons))}); "
                "start a server with `azr-nemo sandbox serve` or Sandbox-Fusion's image, or choose executor=local"
            )

    def _serve(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._closing.is_set():
                    self._changed.wait()
                if self._closing.is_set():
                    return
                request, future = self._waiting.popleft()
                self._changed.notify_all()
                if not future.set_running_or_notify_cancel():
                    continue
                self._running.add(future)
            try:
                _settle(future, self._execute(request))
            except BaseException as error:  # belongs to whoever waits
                _settle(future, error)
            finally:
                with self._lock:
                    self._running.discard(future)

    def _execute(self, request: Request | Script) -> list[Outcome] | ScriptResult:
        """What the first endpoint says that can. Raises ExecutorUnavailable."""
        if isinstance(request, Request) and not request.inputs:
            return []
        until = time.monotonic() + self.patience_s
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, EndpointFailed) and not error.final),
            stop=_Enough(self.attempts, until) | stop_when_event_set(self._closing),
            wait=_pause,
            sleep=sleep_using_event(self._closing),
            reraise=True,
        )
        try:
            return retrying(self._try, request)
        except EndpointFailed as error:
            raise ExecutorUnavailable(f"a program could not be executed remotely: {error}") from None

    def _try(self, request: Request | Script) -> list[Outcome] | ScriptResult:
        endpoint = self._choose()
        try:
            result = endpoint.run_script(request) if isinstance(request, Script) else endpoint.execute(request)
        except EndpointFailed as error:
            if not error.busy:
                self._failed(endpoint)
            raise
        endpoint.failures, endpoint.down_until = 0, 0.0
        return result

    def _choose(self) -> Endpoint:
        """The next endpoint in turn that is not left alone; if all are, the one whose time is over first."""
        with self._lock:
            now = time.monotonic()
            order = [self._endpoints[(self._next + k) % len(self._endpoints)] for k in range(len(self._endpoints))]
            chosen = next((endpoint for endpoint in order if endpoint.down_until <= now), None)
            chosen = chosen or min(order, key=lambda endpoint: endpoint.down_until)
            self._next = (self._endpoints.index(chosen) + 1) % len(self._endpoints)
            return chosen

    def _failed(self, endpoint: Endpoint) -> None:
        endpoint.failures += 1
        endpoint.down_until = time.monotonic() + min(LONGEST_PAUSE_S, 0.5 * 2 ** min(endpoint.failures, 10))


_after_failure, _while_busy = wait_exponential_jitter(initial=0.5, max=10.0), wait_random(0.1, 0.6)


def _pause(attempt: Attempt) -> float:
    error = attempt.outcome.exception() if attempt.outcome else None
    return (_while_busy if isinstance(error, EndpointFailed) and error.busy else _after_failure)(attempt)


class _Enough(stop_after_attempt):
    """Stops after so many attempts; one that found a full server does not count until the time is over."""

    def __init__(self, attempts: int, until: float):
        super().__init__(attempts)
        self._until, self._busy = until, 0

    def __call__(self, attempt: Attempt) -> bool:
        error = attempt.outcome.exception() if attempt.outcome else None
        if isinstance(error, EndpointFailed) and error.busy:
            self._busy += 1
            return time.monotonic() >= self._until
        return attempt.attempt_number - self._busy >= self.max_attempt_number


def _settle(future: Future[Any], result: list[Outcome] | ScriptResult | BaseException) -> None:
    """Gives a future its result, unless closing was faster."""
    try:
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
    except InvalidStateError:
        return
