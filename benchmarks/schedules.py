"""A step's schedule on a cluster that is pretended: the real driver, step and prompts, and an engine whose clock goes on by what the plan's model says.

    python benchmarks/schedules.py                              # 14B on 8, 64 and 512 GPUs, every schedule, beside the computed seconds
    python benchmarks/schedules.py --picture docs/images/schedules.svg

Each prompt of the step is dealt to a replica as in a run (megatron/generation.py), every response gets a recorded length, and each replica decodes
its rows token by token at the plan's seconds for as many as are still alive; a response is handed to the step when it ends. No time passes for real,
so that a busy machine changes nothing. Only kernels and the executor are pretended: what waits for what is the run's own doing.
"""

import argparse
import heapq
import random
import re
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from scaling import RECIPES, fastest

from azr_nemo.megatron.generation import ExpectedLengths, deal, request_seed
from azr_nemo.observe.console import Console
from azr_nemo.observe.lanes import ORDER, Span
from azr_nemo.observe.pictures import PHASES
from azr_nemo.observe.timing import PhaseClock
from azr_nemo.planning.plan import Plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.planning.step_time import batches, decode_seconds, decoded_together, prefill_seconds, step_time
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

# Lengths of responses as shares of the longest allowed, evenly spaced quantiles of what a small model wrote in four steps (192 each).
RECORDED = {
    Role.PROPOSE: (
        0.018, 0.089, 0.116, 0.143, 0.152, 0.161, 0.179, 0.196, 0.196, 0.223, 0.241, 0.268,
        0.304, 0.33, 0.348, 0.393, 0.446, 0.5, 0.536, 0.58, 0.616, 0.688, 0.741, 0.911,
    ),
    Role.SOLVE: (
        0.042, 0.056, 0.056, 0.069, 0.083, 0.097, 0.097, 0.111, 0.111, 0.111, 0.125, 0.125,
        0.139, 0.139, 0.139, 0.153, 0.167, 0.167, 0.194, 0.194, 0.222, 0.278, 0.375, 0.986,
    ),
}  # fmt: skip
GPUS = (8, 64, 512)
STEPS = 6
SETTLED = 2  # steps left out of the means: a pipelined run's first has a batch of its own


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds


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
    """azr_nemo.selfplay.exchange.Engine on a pretended cluster. Every proposal is a new task, as the plan assumes."""

    plan: Plan
    config: RunConfig
    options: PromptOptions
    clock: Clock
    updates: int = 0
    written: int = 0
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
        pieces = deal(requests, expected, size.layout.ranks, size.rollouts.tensor)
        ends: list[tuple[float, int, int]] = []
        for rank in sorted({piece.rank for piece in pieces}):
            mine = [piece for piece in pieces if piece.rank == rank]
            samples = [(piece.index, piece.first + k) for piece in mine for k in range(piece.count)]
            began = self.clock.now() + prefill_seconds(size, hardware, len(mine))
            ends += self._decoded(began, [(drawn[index][k], index, k) for index, k in samples])
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
        return Completion(text, (0,), (0,) * tokens, (-1.0,) * tokens, True, self.updates)

    def update(self, batch: TrainingBatch) -> dict[str, float]:
        self.clock.seconds += self.time.update + self.time.gradients + self.time.refit
        self.updates += 1
        return {"refit_s": self.time.refit}


def adder(number: int) -> str:
    return f"def f(x):\n    return x + {number}"


@dataclass(frozen=True)
class Simulated:
    """What came of a schedule on so many GPUs. seconds, tokens: of a step, mean over the settled ones; spans: of the settled steps, end to end."""

    plan: Plan
    computed_s: float
    seconds: float
    tokens: float
    spans: list[Span]


def planned(config: RunConfig, plan: Plan, schedule: str) -> Plan:
    """The plan with the work of the recorded lengths, by this schedule."""
    work, rollout = plan.size.work, config.rollout
    mean = {role: sum(shares) / len(shares) for role, shares in RECORDED.items()}
    work = replace(
        work,
        mean_propose=round(mean[Role.PROPOSE] * rollout.max_propose_tokens),
        mean_solve=round(mean[Role.SOLVE] * rollout.max_solve_tokens),
    )
    size = replace(plan.size, work=work, schedule=schedule)
    return replace(plan, size=size, time=step_time(size, plan.hardware))


def simulate(config: RunConfig, plan: Plan) -> Simulated:
    """A run of STEPS steps."""
    schedule = plan.size.schedule
    options = PromptOptions(style="completion", pairs=config.selfplay.induction_pairs)
    clock = Clock()
    engine = SimulatedEngine(plan, config, options, clock)
    executor = AdderExecutor()
    spans: list[Span] = []
    seconds, tokens = [], []
    with tempfile.TemporaryDirectory() as folder, TaskBuffer(Path(folder) / "tasks.sqlite", config.selfplay.buffer_capacity) as buffer:
        for kind in TaskType:
            for number in range(1, config.selfplay.batch_size + 1):
                buffer.add(seed(kind, number, options.pairs), 0, seed=True)
        proposer = Proposer(buffer, Validator(executor, Limits()), options, config, lambda text: True)
        solver = Solver(buffer, Verifier(executor, Limits()), options, config, lambda text: True, lambda text: [0])
        play = SelfPlay(proposer, solver, SCHEDULES[schedule])
        driver = Driver(engine, PhaseClock(clock.now), Console("json", open("/dev/null", "w", encoding="utf-8")), config.seed)  # type: ignore[arg-type]  # noqa: SIM115
        for step in range(1, STEPS + 1):
            driver.tokens, began = 0, clock.now()
            driver.lanes.lap()
            driver.update(driver.drive(play.step(step), f"step/{step}").batch)
            if step > SETTLED:
                seconds.append(clock.now() - began)
                tokens.append(driver.tokens)
                offset = sum(seconds[:-1])
                spans += [Span(span.lane, span.began + offset, span.ended + offset) for span in driver.lanes.lap()]
    return Simulated(plan, plan.time.total, sum(seconds) / len(seconds), sum(tokens) / len(tokens), spans)


def seed(kind: TaskType, number: int, pairs: int) -> Task:
    inputs = tuple(map(str, range(pairs if kind is TaskType.INDUCTION else 1)))
    return Task(kind, adder(number), inputs, tuple(str(int(x) + number) for x in inputs), "adds" if kind is TaskType.INDUCTION else "")


def draw(found: dict[tuple[int, str], Simulated], out: Path) -> None:
    """Two steps of each schedule: a lane for each phase."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(found), 1, figsize=(9, 1.35 * len(found)), sharex=False, layout="constrained")
    for plot, ((gpus, schedule), result) in zip(axes, found.items(), strict=True):
        lanes = [lane for lane in ORDER if any(span.lane == lane for span in result.spans)]
        for span in result.spans:
            plot.barh(lanes.index(span.lane), span.ended - span.began, left=span.began, color=PHASES[span.lane], height=0.8)
        slowest = max(other.seconds for (count, _), other in found.items() if count == gpus)
        plot.set_xlim(0, 2 * slowest)
        plot.set_yticks(range(len(lanes)), lanes, fontsize=7)
        plot.invert_yaxis()
        plot.set_title(f"{gpus} GPUs, {schedule}: {result.seconds:.0f} s a step", fontsize=8, loc="left")
        plot.tick_params(axis="x", labelsize=7)
    axes[-1].set_xlabel("seconds", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="14B", choices=sorted(RECIPES))
    parser.add_argument("--gpus", type=int, nargs="+", default=list(GPUS))
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    config = load_settings([f"recipe={RECIPES[args.model]}", "selfplay.solve_from=previous", "selfplay.prompt_style=completion"])
    found: dict[tuple[int, str], Simulated] = {}
    print("| GPUs | schedule | batches | computed s | simulated s | apart | simulated tokens/s | over sequential |")
    print("|---|---|---|---|---|---|---|---|")
    for gpus in args.gpus:
        layout = fastest(config, gpus // 8)
        assert layout is not None
        for schedule in SCHEDULES:
            plan = planned(config, layout, schedule)
            result = found[gpus, schedule] = simulate(config, plan)
            speed = result.tokens / result.seconds
            base = found[gpus, "sequential"]
            print(
                f"| {gpus} | {schedule} | {'; '.join(batches(plan.size))} | {result.computed_s:.1f} | {result.seconds:.1f} | "
                f"{result.seconds / result.computed_s - 1:+.1%} | {speed:.0f} | {speed / (base.tokens / base.seconds):.2f}x |",
                flush=True,
            )
    if args.picture:
        draw(found, args.picture)


if __name__ == "__main__":
    main()
