"""One arm of learning.py: a run whose advantages may be spoilt, or a checkpoint's answers to held-out tasks. Started by learning.py, one process each."""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

import azr_nemo.selfplay.step as selfplay
from azr_nemo.evaluation.in_training import HeldOut
from azr_nemo.megatron.controller import build_engine
from azr_nemo.models import resolve_model
from azr_nemo.observe.console import Console
from azr_nemo.observe.timing import PhaseClock
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Attempt, Completions, PromptBatch, SampleGroup, ask
from azr_nemo.selfplay.measure import answers_by_echo
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.program import program_hash
from azr_nemo.tasks.task import Role, Task, TaskType, Verdict
from azr_nemo.trainer.assembly import starting_weights, with_dtype
from azr_nemo.trainer.driver import Driver
from azr_nemo.trainer.loop import train
from azr_nemo.trainer.session import make_session

# What each arm changes of the recipe. First the recipe beside what lacks something, then what may keep it learning, one thing at a time.
LACKING: dict[str, list[str]] = {
    "selfplay": [],
    "solver_only": ["selfplay.train_propose=false"],
    "seeds_only": [],
    "shuffled": [],
    "zero": [],
}
IDEAS: dict[str, list[str]] = {
    "pipelined": ["selfplay.schedule=pipelined"],
    "max_rl": ["advantage.name=max_rl"],
    "easy_weight": ["advantage.easy_success_weight=0.3"],
    "clip_higher": ["optim.mini_batches=4", "optim.clip_high=0.28"],
    "cispo": ["optim.mini_batches=4", "optim.loss=cispo", "optim.clip_low=1", "optim.clip_high=1"],
    "dynamic_sampling": ["selfplay.dynamic_sampling=2"],
    "retire": ["selfplay.retire_easy=0.9"],
    "learnable": ["selfplay.solve_from=learnable"],
    "shapes": [
        "selfplay.shape_cap=20", "reward.intrinsic_combine=multiply", "reward.intrinsic.shape_novelty.coef=1", "reward.intrinsic.shape_novelty.max=1",
    ],
    "wishes": ["selfplay.wishes=2"],
    "refuse": ["selfplay.refuse_ignored_input=true", "selfplay.refuse_echoed_output=true"],
    "unpaid_echo": ["reward.echo=wrong"],
    "ignored_echo": ["reward.echo=left_out"],
    "failures_too": ["advantage.failure_weight=1", "selfplay.known_answers=false"],
    "right_alone": ["advantage.failure_weight=0", "selfplay.known_answers=false"],
    "known_answers": ["advantage.failure_weight=1", "selfplay.known_answers=true"],
    "wordings": ["selfplay.wordings=4"],
    "replay": ["selfplay.replay=1"],
    "right_and_known": ["advantage.failure_weight=0", "selfplay.known_answers=true"],
}  # fmt: skip
ARMS = LACKING | IDEAS

NOTHING = 1e-30  # its gradient is lost beside Adam's eps


def shuffled(rows: list[Attempt], rng: random.Random) -> None:
    """Each row gets the advantage of another row of its (role, task type) group, so that sizes and signs stay and their meaning goes."""
    groups: dict[tuple[Role, TaskType], list[Attempt]] = {}
    for row in rows:
        groups.setdefault((row.prompt.role, row.prompt.type), []).append(row)
    for group in groups.values():
        for row, other in zip(group, rng.sample([row.advantage for row in group], len(group)), strict=True):
            row.advantage = other


def zero(rows: list[Attempt], rng: random.Random) -> None:
    """No row has an advantage: what is left of the update is the entropy bonus, weight decay and the optimizer's momentum. A row that had one
    keeps next to nothing of it, so that a filter of rows without leaves the recipe's in."""
    for row in rows:
        row.advantage = NOTHING if row.advantage else 0.0


SPOIL: dict[str, Callable[[list[Attempt], random.Random], None]] = {"shuffled": shuffled, "zero": zero}


def run(arm: str, config: RunConfig, minutes: float) -> int:
    """Trains; after `minutes` of self-play (0: never) it asks itself to stop, as a signal would."""
    step, give_advantages = selfplay.SelfPlay.step, selfplay.give_advantages
    numbers = [0]
    started: list[float] = []

    def counted(self: selfplay.SelfPlay, number: int) -> Generator[PromptBatch, Completions, selfplay.StepResult]:
        numbers.append(number)
        started.append(time.monotonic())
        result = yield from step(self, number)
        if minutes and time.monotonic() - started[0] > 60 * minutes:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    def spoilt(rows: list[Attempt], config: RunConfig, baselines: dict[int, float]) -> dict[int, float]:
        after = give_advantages(rows, config, baselines)
        SPOIL[arm](rows, random.Random(f"{config.seed}/{arm}/{numbers[-1]}"))
        return after

    selfplay.SelfPlay.step = counted  # type: ignore[method-assign]
    if arm == "seeds_only":
        selfplay.Proposer.rows = lambda self, rng, step: []  # type: ignore[method-assign]
    if arm in SPOIL:
        selfplay.give_advantages = spoilt
    return train(config)


def answered(out: Path) -> int:
    """Held-out programs that have been answered into `out`."""
    return out.read_text(encoding="utf-8").count("\n") // len(TaskType) if out.exists() else 0


def answers(config: RunConfig, programs: int, samples: int, out: Path) -> None:
    """Answers held-out tasks with the run's latest checkpoint, or with the warm start where the run has none: one JSON line a task, with its
    program's hash, whether the greedy answer was right and why not, whether it repeats the output where an input is asked for, and how many of `samples`
    sampled ones were right (0: none is sampled). Those that `out` has stay as they are."""
    done = answered(out)
    config = with_dtype(config, None)  # decides which warm start it is
    config.eval.items, config.eval.suites = programs, []
    untuned = resolve_model(config.model)
    weights = starting_weights(config, untuned)
    latest = Path(config.run_dir) / "checkpoints" / "latest"
    if config.warmup.steps and weights == untuned and not latest.exists():
        sys.exit("the warm start is not in the cache: run an arm first")
    with tempfile.TemporaryDirectory() as folder, make_executor(config.executor) as executor, Console("plain") as console:
        engine = build_engine(config, weights)
        assert engine is not None
        if latest.exists():
            engine.load(latest.parent / latest.read_text(encoding="utf-8").strip())
        with TaskBuffer(Path(folder) / "buffer.sqlite", 1) as buffer:
            session = make_session(config, engine, executor, buffer)
            (held_out,) = session.evaluations
            assert isinstance(held_out, HeldOut)
            del held_out.tasks[: done * len(TaskType)]
            driver = Driver(engine, PhaseClock(), console, seed=1 + done)
            greedy = driver.drive(_answers(held_out, 1, 0.0), "learning/greedy")
            sampled = driver.drive(_answers(held_out, samples, config.rollout.temperature), "learning/sampled") if samples else greedy
            # While the executor is there: it has grades to give yet.
            rows = [
                {
                    "type": task.type,
                    "program": program_hash(task.program),
                    "greedy": share(row.outcomes()),
                    "sampled": share(several.outcomes()) if samples else None,
                    "reason": row.outcomes()[0].reason,
                    "echo": answers_by_echo(first_of(row, task), held_out.solver.options),
                }
                for task, row, several in zip(held_out.tasks, greedy, sampled, strict=True)
            ]
        engine.close()
    part = out.with_suffix(".part")  # a reader sees the answers of whole programs only
    part.write_text((out.read_text(encoding="utf-8") if done else "") + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    part.replace(out)


def _answers(held_out: HeldOut, samples: int, temperature: float) -> Generator[PromptBatch, Completions, list[SampleGroup]]:
    """The answers to each task."""
    rows = [held_out.solver.row(task, samples, temperature, echo="right") for task in held_out.tasks]
    yield from ask(rows, "evaluate")
    return rows


def first_of(row: SampleGroup, task: Task) -> Attempt:
    """Its first answer as an attempt at the task."""
    return Attempt(row.prompt, row.completions[0], 0.0, "", task)


def share(verdicts: list[Verdict]) -> float:
    """Of right answers."""
    return sum(verdict.score == 1 for verdict in verdicts) / len(verdicts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--arm", choices=sorted(ARMS), default="selfplay")
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--answers", type=Path, help="answer held-out tasks instead, into this file")
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=4)
    args = parser.parse_intermixed_args()
    config = load_settings([*args.overrides, *ARMS[args.arm]])
    if args.answers:
        answers(config, args.programs, args.samples, args.answers)
        return 0
    return run(args.arm, config, args.minutes)


if __name__ == "__main__":
    sys.exit(main())
