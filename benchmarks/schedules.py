"""A step's schedule on a cluster that is pretended: the real driver, step and prompts, and an engine whose clock goes on by what the plan's model says.

    python benchmarks/schedules.py                              # 14B on 8, 64 and 512 GPUs, every schedule, beside the computed seconds
    python benchmarks/schedules.py --gpus 64 --picture docs/images/schedules.svg

Each prompt of the step is dealt to a replica as in a run (megatron/generation.py), every response gets a recorded length (response_lengths.py), and each
replica decodes its rows token by token at the plan's seconds for as many as are still alive; a response is handed to the step when it ends. With `split`
a step is sampled in the run's own thread beside the update before (trainer/flight.py), by ranks of its own. No time passes for real, so that a busy
machine changes nothing. Only kernels and the executor are pretended: what waits for what is the run's own doing. Each schedule has the layout, and the
number of samplers, with the shortest computed step.
"""

import argparse
import heapq
import io
import random
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from response_lengths import recorded
from scaling import RECIPES, layouts

from azr_nemo.megatron.generation import ExpectedLengths, deal, request_seed
from azr_nemo.observe.console import Console
from azr_nemo.observe.lanes import ORDER, Span
from azr_nemo.observe.pictures import PHASES
from azr_nemo.observe.timing import PhaseClock
from azr_nemo.planning.plan import Plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.planning.step_time import decode_seconds, decoded_together, prefill_seconds, step_time
from azr_nemo.rollout.engine import SampleRequest
from azr_nemo.sandbox.executor import Executor, Limits, Outcome, Request, Status
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completion, Prompt, PromptBatch, TrainingBatch
from azr_nemo.selfplay.proposer import Proposer
from azr_nemo.selfplay.schedules import SCHEDULES
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.selfplay.validation import Validator, Verifier
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import PromptOptions, Proposal, Role, Task, TaskType
from azr_nemo.trainer.driver import Driver
from azr_nemo.trainer.flight import Flight

GPUS = (8, 64, 512)
ARMS = {  # schedule and staleness; with one the ranks are split
    "sequential": ("sequential", 0),
    "merged": ("merged", 0),
    "pipelined": ("pipelined", 0),
    "sequential, split": ("sequential", 1),
    "pipelined, split": ("pipelined", 1),
}
ROWS = 512  # as many as a replica's cache holds, and no fewer than it is dealt on 64 GPUs in any schedule
STEPS = 6
SETTLED = 2  # steps left out of the means: a pipelined run's first has a batch of its own, and with staleness nothing goes on beside it
RECORDED = recorded()


class Clock:
    """Seconds that pass when somebody says so. The thread that samples beside an update has its own, from `fork` on; `join` waits for the later."""

    def __init__(self) -> None:
        self._own = self._beside = 0.0

    @property
    def seconds(self) -> float:
        return self._beside if threading.current_thread().name == "sampling" else self._own

    @seconds.setter
    def seconds(self, value: float) -> None:
        if threading.current_thread().name == "sampling":
            self._beside = value
        else:
            self._own = value

    def now(self) -> float:
        return self.seconds

    def fork(self) -> None:
        self._beside = self._own

    def join(self) -> None:
        self._own = max(self._own, self._beside)


class AdderExecutor(Executor):
    """Runs programs that add a number, at once."""

    def submit(self, request: Request) -> Future[list[Outcome]]:
        number = int(re.findall(r"x \+ (\d+)", request.program)[0])
        future: Future[list[Outcome]] = Future()
        future.set_result([Outcome(Status.OK, str(int(text) + number)) for text in request.inputs])
        return future

    def run(self, requests: Iterable[Request]) -> Iterator[list[Outcome]]:
        return iter([self.submit(request).result() for request in requests])

    def describe(self) -> str:
        return "adders"

    def close(self) -> None:
        return


@dataclass
class SimulatedEngine:
    """azr_nemo.selfplay.exchange.Engine on a pretended cluster. Every proposal is a new task, as the plan assumes. updates, version: of the trainer's
    weights and of the samplers'. sampled, learnt: seconds of all ranks in which they were at it."""

    plan: Plan
    config: RunConfig
    options: PromptOptions
    clock: Clock
    updates: int = 0
    version: int = 0
    written: int = 0
    sampled: float = 0.0
    learnt: float = 0.0
    tokenizer: Any = None

    def __post_init__(self) -> None:
        self.lengths = ExpectedLengths()
        self.time = step_time(self.plan.size, self.plan.hardware)

    def generate(self, batch: PromptBatch, seed: int) -> list[list[Completion]]:
        size, hardware = self.plan.size, self.plan.hardware
        kinds = [(prompt.role, prompt.type) for prompt in batch.prompts]
        requests = [self._request(prompt, request_seed(seed, place)) for place, prompt in enumerate(batch.prompts)]
        drawn = [self._lengths(prompt, request.seed) for prompt, request in zip(batch.prompts, requests, strict=True)]
        expected = [self.lengths.of(kind, request.max_new_tokens) for kind, request in zip(kinds, requests, strict=True)]
        pieces = deal(requests, expected, size.sampling_ranks, size.rollouts.tensor)
        ends: list[tuple[float, int, int]] = []
        for rank in sorted({piece.rank for piece in pieces}):
            mine = [piece for piece in pieces if piece.rank == rank]
            samples = [(piece.index, piece.first + k) for piece in mine for k in range(piece.count)]
            began = self.clock.now()
            prefilled = began + prefill_seconds(size, hardware, len(mine))
            decoded = self._decoded(prefilled, [(drawn[index][k], index, k) for index, k in samples])
            self.sampled += size.rollouts.tensor * (decoded[-1][0] - began)
            ends += decoded
        answers: list[list[Completion]] = [[None] * prompt.samples for prompt in batch.prompts]  # type: ignore[list-item]
        for ended, index, k in sorted(ends):
            self.clock.seconds = ended
            answers[index][k] = self._completion(batch.prompts[index], drawn[index][k])
            if batch.on_completion:
                batch.on_completion(index, k, answers[index][k])
        for kind in set(kinds):
            self.lengths.learn(kind, [n for lengths, its in zip(drawn, kinds, strict=True) if its == kind for n in lengths])
        return answers

    def _decoded(self, began: float, samples: list[tuple[int, int, int]]) -> list[tuple[float, int, int]]:
        """When each (tokens, index, k) ends on one replica, which decodes as many together as its cache holds."""
        size, hardware = self.plan.size, self.plan.hardware
        context = size.work.mean_prompt + sum(length for length, _, _ in samples) // len(samples) // 2
        slots = decoded_together(size, len(samples), context)
        waiting, live, ends = samples[::-1], list[tuple[int, int, int]](), []
        now, tokens = began, 0
        while waiting or live:
            while waiting and len(live) < slots:
                length, index, k = waiting.pop()
                heapq.heappush(live, (tokens + length, index, k))
            last, index, k = heapq.heappop(live)
            now += (last - tokens) * decode_seconds(size, hardware, len(live) + 1, context)
            tokens = last
            ends.append((now, index, k))
        return ends

    def _lengths(self, prompt: Prompt, seed: int) -> list[int]:
        rng = random.Random(seed)
        return [max(1, round(rng.choice(RECORDED[prompt.role]) * prompt.max_new_tokens)) for _ in range(prompt.samples)]

    def _request(self, prompt: Prompt, seed: int) -> SampleRequest:
        return SampleRequest((0,) * self.plan.size.work.mean_prompt, prompt.samples, prompt.max_new_tokens, 1.0, seed)

    def _completion(self, prompt: Prompt, tokens: int) -> Completion:
        kind = KINDS[prompt.type]
        if prompt.role is Role.PROPOSE:
            self.written += 1
            inputs = (
                tuple(map(str, range(self.written, self.written + self.options.pairs))) if prompt.type is TaskType.INDUCTION else ("1",)
            )
            numbers = re.findall(r"x \+ (\d+)", prompt.text.full)
            number = int(numbers[0]) if prompt.type is TaskType.INDUCTION else self.written + 10**6
            text = kind.proposal_text(Proposal(prompt.type, adder(number), inputs), self.options)
        else:  # an answer as far as form goes
            answer = adder(1) if prompt.type is TaskType.INDUCTION else str(self.written)
            text = kind.answer_text(answer, self.options)
        return Completion(text, (0,), (0,) * tokens, (-1.0,) * tokens, True, self.version)

    def update(self, batch: TrainingBatch, refit: bool = True) -> dict[str, float]:
        self.clock.seconds += self.time.learning
        self.learnt += self.plan.size.layout.ranks * self.time.learning
        self.updates += 1
        if refit:
            self.refit()
        return {"refit_s": self.time.refit if refit else 0.0}

    def refit(self) -> None:
        self.clock.seconds += self.time.refit
        self.learnt += self.plan.size.ranks * self.time.refit
        self.version = self.updates


def adder(number: int) -> str:
    return f"def f(x):\n    return x + {number}"


@dataclass(frozen=True)
class Simulated:
    """What came of a schedule on so many GPUs, over the settled steps. seconds, tokens: of a step. used: share of all ranks' time in which they sample,
    learn or hand weights over. ages: updates between the weights that drew rows and those that learn from them. spans: end to end."""

    plan: Plan
    seconds: float
    tokens: float
    used: float
    ages: set[int]
    spans: list[Span]


def scheduled(config: RunConfig, schedule: str, staleness: int) -> RunConfig:
    """With staleness the ranks are split."""
    selfplay = replace(config.selfplay, schedule=schedule, staleness=staleness)
    return replace(config, placement="split" if staleness else "colocated", selfplay=selfplay)


def planned(config: RunConfig, plan: Plan) -> Plan:
    """The plan with the work of the recorded lengths."""
    limits = {Role.PROPOSE: config.rollout.max_propose_tokens, Role.SOLVE: config.rollout.max_solve_tokens}
    means = {f"mean_{role}": round(sum(RECORDED[role]) / len(RECORDED[role]) * limits[role]) for role in Role}
    size = replace(plan.size, work=replace(plan.size.work, **means))
    return replace(plan, size=size, time=step_time(size, plan.hardware))


def simulate(config: RunConfig, plan: Plan) -> Simulated:
    """A run of STEPS steps."""
    config = replace(config, selfplay=replace(config.selfplay, steps=STEPS + config.selfplay.staleness))
    options = PromptOptions(style="completion", pairs=config.selfplay.induction_pairs)
    clock = Clock()
    engine = SimulatedEngine(plan, config, options, clock)
    executor = AdderExecutor()
    spans: list[Span] = []
    seconds, tokens, busy = [], [], []
    ages: set[int] = set()
    with tempfile.TemporaryDirectory() as folder, TaskBuffer(Path(folder) / "tasks.sqlite", config.selfplay.buffer_capacity) as buffer:
        for kind in TaskType:
            for number in range(1, config.selfplay.batch_size + 1):
                buffer.add(seed(kind, number, options.pairs), 0, seed=True)
        proposer = Proposer(buffer, Validator(executor, Limits()), options, config, lambda text: True)
        solver = Solver(buffer, Verifier(executor, Limits()), options, config, lambda text: True, lambda text: [0])
        play = SelfPlay(proposer, solver, SCHEDULES[config.selfplay.schedule])
        console = Console("json", io.StringIO())
        driver = Driver(engine, PhaseClock(clock.now), console, config.seed)  # type: ignore[arg-type]
        ahead = Driver(engine, PhaseClock(clock.now), console, config.seed, driver.lanes)  # type: ignore[arg-type]
        flight = Flight(play, driver, ahead, {})
        for step in range(1, STEPS + 1):  # as in azr_nemo/trainer/loop.py
            began, worked = clock.now(), engine.sampled + engine.learnt
            driver.lanes.lap()
            sampled = flight.take(step)
            clock.fork()
            with flight.sampling(step):
                driver.update(sampled.result.batch, refit=not flight.staleness)
            clock.join()
            if flight.staleness:
                driver.refit()
            if step > SETTLED:
                offset = sum(seconds)
                seconds.append(clock.now() - began)
                tokens.append(sampled.tokens)
                busy.append(engine.sampled + engine.learnt - worked)
                ages |= {step - 1 - version for version in sampled.result.batch.versions.tolist()}
                spans += [Span(span.lane, span.began + offset, span.ended + offset) for span in driver.lanes.lap()]
    whole = sum(seconds)
    return Simulated(plan, whole / len(seconds), sum(tokens) / len(tokens), sum(busy) / (whole * plan.size.ranks), ages, spans)


def seed(kind: TaskType, number: int, pairs: int) -> Task:
    inputs = tuple(map(str, range(pairs if kind is TaskType.INDUCTION else 1)))
    return Task(kind, adder(number), inputs, tuple(str(int(x) + number) for x in inputs), "adds" if kind is TaskType.INDUCTION else "")


def draw(found: dict[tuple[int, str], Simulated], out: Path) -> None:
    """The same seconds of each schedule: a lane for each phase."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(found), 1, figsize=(9, 1.45 * len(found)), sharex=True, layout="constrained")
    for plot, ((gpus, arm), result) in zip(axes, found.items(), strict=True):
        lanes = [lane for lane in ORDER if any(span.lane == lane for span in result.spans)]
        for span in result.spans:
            plot.barh(lanes.index(span.lane), span.ended - span.began, left=span.began, color=PHASES[span.lane], height=0.8)
        plot.set_yticks(range(len(lanes)), lanes, fontsize=7)
        plot.invert_yaxis()
        plot.set_title(
            f"{arm}, {ranks_text(result.plan, gpus)}: {result.seconds:.0f} s a step, {result.used:.0%} used", fontsize=8, loc="left"
        )
        plot.tick_params(axis="x", labelsize=7)
    axes[-1].set_xlim(0, min(max(span.ended for span in result.spans) for result in found.values()))
    axes[-1].set_xlabel("seconds", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def ranks_text(plan: Plan, gpus: int) -> str:
    size = plan.size
    return f"{size.layout.ranks} GPUs train, {size.samplers} sample" if size.samplers else f"{gpus} GPUs do both"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="14B", choices=sorted(RECIPES))
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPUS))
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    settings = ["selfplay.solve_from=previous", "selfplay.prompt_style=completion", f"rollout.max_batch_rows={ROWS}"]
    config = load_settings([f"recipe={RECIPES[args.model]}", *settings])
    found: dict[tuple[int, str], Simulated] = {}
    print(
        "| GPUs | schedule | train: TP x PP x DP | sample: GPUs, TP | computed s | simulated s | apart | tokens/s | over sequential | used |"
    )
    print("|" + "---|" * 10)
    for gpus in args.gpus:
        for arm, (schedule, staleness) in ARMS.items():
            tried = scheduled(config, schedule, staleness)
            plan = min((planned(tried, plan) for plan in layouts(tried, gpus // 8)), key=lambda plan: plan.time.total)
            result = found[gpus, arm] = simulate(tried, plan)
            size, computed, base = plan.size, plan.time.total, found[gpus, "sequential"]
            speed = result.tokens / result.seconds
            print(
                f"| {gpus} | {arm} | {size.layout.tensor} x {size.layout.pipeline} x {size.layout.data} | {size.sampling_ranks}, {size.rollouts.tensor} | "
                f"{computed:.1f} | {result.seconds:.1f} | {result.seconds / computed - 1:+.1%} | {speed:.0f} | "
                f"{speed / (base.tokens / base.seconds):.2f}x | {result.used:.0%} |",
                flush=True,
            )
    if args.picture:
        draw(found, args.picture)


if __name__ == "__main__":
    main()
