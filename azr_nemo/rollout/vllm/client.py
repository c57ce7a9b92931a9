"""What a vLLM server is asked over HTTP: samples, as they end, and whatever changes its weights and memory. Every wait has a bound."""

import asyncio
import json
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx

from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import Sample, SampleRequest

LOOKED_EVERY_S = 0.5  # at the server's process, while samples are awaited
GENERATE, ABORT = "/inference/v1/generate", "/inference/v1/abort_requests"
ENDS_WITHIN_S = 20.0  # a server whose engine died ends itself
PROGRESS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")  # counters that move while the engine works
CLAMPED = -9000.0  # vLLM sends log-probabilities that are no numbers as -9999


class ServerLost(UserError):
    """The server's process, or its engine, is gone; reason: how."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the vLLM server was lost: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Job:
    """Sample `number` of request `index`."""

    index: int
    number: int
    request: SampleRequest


class Client:
    """Speaks to one server. gone(wait_s): why its process no longer runs, or empty; for a server of someone else's it is always empty.

    One thread may sample while another one calls."""

    def __init__(
        self, url: str, headers: Mapping[str, str], gone: Callable[[float], str], in_flight: int, patience_s: float, between_tokens: bool
    ):
        """in_flight: requests that are sent at once; the server batches them. patience_s: how long it may stand still. between_tokens: the
        weights may change while samples are drawn."""
        self.url, self._headers, self._gone = url, dict(headers), gone
        self._in_flight, self._patience_s, self._between_tokens = in_flight, patience_s, between_tokens
        self._control = httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=patience_s)
        self._moved = 0.0

    def close(self) -> None:
        self._control.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around a change of the weights. Between tokens: what is being drawn stands still meanwhile, and goes on with keys and values that the new
        weights make of its prompt and its tokens so far. Elsewhere nothing is being drawn."""
        if not self._between_tokens:
            yield
            return
        self.call("/pause", mode="keep")
        try:
            yield
            self.call("/reset_prefix_cache", reset_running_requests="true")
        except RuntimeError:
            self.call("/resume")  # it may be somebody else's too
            raise
        self.call("/resume")

    def forget_prefixes(self) -> None:
        """Keys and values of the old weights must not meet the new ones. `changing` has seen to it between tokens."""
        if not self._between_tokens and not self.call("/reset_prefix_cache")["success"]:
            raise RuntimeError("the vLLM server kept its prefix cache: requests were still running when the weights changed")

    def call(self, path: str, body: Any = None, **query: str) -> Any:
        """POSTs, and gives the answer's JSON. Raises ServerLost, UserError when no answer comes in time, RuntimeError for a refusal."""
        return self._asked(lambda: self._control.post(path, json=body, params=query), path)

    def _asked(self, ask: Callable[[], httpx.Response], path: str) -> Any:
        try:
            answer = ask()
        except httpx.TimeoutException:
            raise UserError(self._stands_still(f"did not answer {path}")) from None
        except httpx.TransportError as error:
            raise self._lost(error) from None
        self._check(answer, path)
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        """The JSON of a GET. Raises as `call` does."""
        return self._asked(lambda: self._control.get(path), path)

    def sample(
        self,
        jobs: Sequence[Job],
        parameters: Callable[[Job], dict[str, Any]],
        arrived: Callable[[Job, Sample], None],
        ended: Callable[[Job, Sequence[int], int], bool],
    ) -> None:
        """Draws every job's sample; arrived(job, sample) is called in this thread as each one ends. Raises as `call` does.

        ended(job, tokens, known): whether the tokens so far complete a stop string, which the first `known` do not: the server has no tokenizer.
        """
        asyncio.run(self._sample(deque(jobs), parameters, arrived, ended))

    async def _sample(
        self,
        jobs: deque[Job],
        parameters: Callable[[Job], dict[str, Any]],
        arrived: Callable[[Job, Sample], None],
        ended: Callable[[Job, Sequence[int], int], bool],
    ) -> None:
        self._moved = time.monotonic()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._in_flight)
        async with httpx.AsyncClient(base_url=self.url, headers=self._headers, trust_env=False, timeout=None, limits=limits) as http:

            async def work() -> None:
                while jobs:
                    job = jobs.popleft()
                    body = {"token_ids": job.request.prompt_ids, "sampling_params": parameters(job)}
                    sample = await (self._streamed(http, job, body, ended) if job.request.stop else self._whole(http, body))
                    self._moved = time.monotonic()
                    arrived(job, sample)

            tasks = [asyncio.ensure_future(work()) for _ in range(min(self._in_flight, len(jobs)))]
            working: asyncio.Future[Any] = asyncio.gather(*tasks)
            watching: asyncio.Future[Any] = asyncio.ensure_future(self._watch(http))
            try:
                await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    watching.result()  # raises
                working.result()
            finally:
                for task in (*tasks, watching):
                    task.cancel()
                await asyncio.gather(working, *tasks, watching, return_exceptions=True)

    async def _whole(self, http: httpx.AsyncClient, body: dict[str, Any]) -> Sample:
        try:
            answer = await http.post(GENERATE, json=body)
        except httpx.TransportError as error:
            raise self._lost(error) from None
        self._check(answer, GENERATE)
        (choice,) = answer.json()["choices"]
        return read_choices([choice])

    async def _streamed(
        self, http: httpx.AsyncClient, job: Job, body: dict[str, Any], ended: Callable[[Job, Sequence[int], int], bool]
    ) -> Sample:
        choices: list[dict[str, Any]] = []
        tokens: list[int] = []
        name, aborted = uuid.uuid4().hex, False
        try:
            async with http.stream("POST", GENERATE, json={**body, "request_id": name, "stream": True}) as answer:
                if answer.status_code >= 400:
                    await answer.aread()
                    self._check(answer, GENERATE)
                async for line in answer.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    told = json.loads(line.removeprefix("data: "))
                    if "error" in told:
                        self._refused(500, json.dumps(told["error"]), GENERATE)
                    for choice in told["choices"]:
                        known = len(tokens)
                        choices.append(choice)
                        tokens += choice["token_ids"]
                        if not aborted and ended(job, tokens, known):
                            # The stream's last word still comes, and only that says which weights drew the sample.
                            aborted = True
                            await http.post(ABORT, json={"request_ids": [f"generate-tokens-{name}"]})
        except httpx.TransportError as error:
            raise self._lost(error) from None
        return read_choices(choices, aborted)

    async def _watch(self, http: httpx.AsyncClient) -> None:
        """Raises when the server is gone, or has stood still too long: no sample ended and its counters of tokens did not move."""
        seen: tuple[float, ...] | None = None
        every = max(LOOKED_EVERY_S, self._patience_s / 20)
        looked = 0.0
        while True:
            await asyncio.sleep(min(LOOKED_EVERY_S, every))
            if reason := self._gone(0.0):
                raise ServerLost(reason)
            if time.monotonic() - looked >= every:
                counted = await self._counted(http, every)
                looked = time.monotonic()
                if counted is not None and counted != seen:
                    seen, self._moved = counted, looked
            if time.monotonic() - self._moved > self._patience_s:
                raise UserError(self._stands_still("stands still"))

    async def _counted(self, http: httpx.AsyncClient, within_s: float) -> tuple[float, ...] | None:
        try:
            answer = await http.get("/metrics", timeout=within_s)
        except httpx.TransportError:
            return None
        return tuple(float(line.rsplit(" ", 1)[1]) for line in answer.text.splitlines() if line.startswith(PROGRESS))

    def _check(self, answer: httpx.Response, path: str) -> None:
        if answer.status_code >= 400:
            self._refused(answer.status_code, answer.text, path)

    def _refused(self, status: int, text: str, path: str) -> NoReturn:
        said = " ".join(text.split())[:500]
        # An engine that died is told as an error of the server, which then ends itself.
        if status >= 500 and (reason := self._gone(ENDS_WITHIN_S)):
            raise ServerLost(reason)
        raise RuntimeError(f"the vLLM server at {self.url} refused {path} with {status}: {said}")

    def _lost(self, error: Exception) -> Exception:
        if reason := self._gone(ENDS_WITHIN_S):
            return ServerLost(reason)
        return UserError(f"the vLLM server at {self.url} cannot be reached ({error or type(error).__name__}): look at its log")

    def _stands_still(self, what: str) -> str:
        return (
            f"the vLLM server at {self.url} {what} for rollout.vllm.patience_s={self._patience_s:g} s: look at its log, or raise that; "
            "the run goes on from its last checkpoint"
        )


def read_choices(choices: Sequence[Mapping[str, Any]], aborted: bool = False) -> Sample:
    """A sample from the parts of vLLM's answer. aborted: it was told to stop, and may have been at its end already.

    Raises RuntimeError for one that is not whole, UserError when the weights have diverged."""
    if not choices:
        raise RuntimeError("vLLM ended a sample without a word")
    ids = tuple(token for choice in choices for token in choice["token_ids"])
    logprobs = tuple(float(entry["logprob"]) for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"])
    reason = choices[-1]["finish_reason"]
    if reason not in ("stop", "length", *(["abort"] if aborted else [])) or len(logprobs) != len(ids):
        raise RuntimeError(f"vLLM ended a sample of {len(ids)} tokens by {reason} with {len(logprobs)} log-probabilities")
    if not all(math.isfinite(value) and value > CLAMPED for value in logprobs):
        raise UserError(
            "the model's logits are not finite: the weights have diverged; lower optim.lr and resume from an earlier checkpoint"
        )
    spans = [span for choice in choices for span in choice["weight_versions"] or []]
    first, *newer = [(span["start"], version_of(span["version"])) for span in spans] or [(0, version_of(""))]
    return Sample(ids, logprobs, reason == "stop", weight_version=first[1], newer=tuple(newer))


def version_of(said: str) -> int:
    """The update that a server's weights are called by. Raises UserError for one of another run."""
    if not said.isdecimal():
        raise UserError(
            f"a sample was drawn with the weights called {said or 'nothing'}, which no update of this run handed over: "
            "is another run using the same server?"
        )
    return int(said)
