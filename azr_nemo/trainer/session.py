"""What a run is made of whatever its engine: both roles over the buffer, held-out tasks, and the seeds that they begin with."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_nemo.evaluation.in_training import HeldOut, Validation
from azr_nemo.observe.console import Console
from azr_nemo.sandbox.configured import limits
from azr_nemo.sandbox.executor import Executor
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Engine
from azr_nemo.selfplay.options import options_of
from azr_nemo.selfplay.proposer import Proposer
from azr_nemo.selfplay.schedules import SCHEDULES
from azr_nemo.selfplay.seed_files import SeedReport, load_seeds
from azr_nemo.selfplay.self_seeding import SeedingLoop, SeedProgress
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.selfplay.validation import Validator, Verifier
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.styles.chat import chat_frame
from azr_nemo.tasks.task import PromptOptions
from azr_nemo.trainer.driver import Driver
from azr_nemo.warmup.generator import generate_tasks

HELD_OUT_SEED = 7  # the same tasks for every run, so that runs can be compared


def prompt_options(config: RunConfig, tokenizer: Any) -> PromptOptions:
    """How prompts are written. Raises UserError for a chat style and a tokenizer without a chat template."""
    frame = chat_frame(tokenizer) if config.selfplay.prompt_style.startswith("chat") else ("", "", "")
    return options_of(config.selfplay, frame)


@dataclass(frozen=True)
class Session:
    """The parts of a run that need an engine."""

    selfplay: SelfPlay
    evaluations: list[HeldOut | Validation]

    @property
    def proposer(self) -> Proposer:
        return self.selfplay.proposer


def make_session(config: RunConfig, engine: Engine, executor: Executor, buffer: TaskBuffer, console: Console | None = None) -> Session:
    """The two roles over the buffer, and the held-out tasks when `eval.items` asks for them. console: shows how those are made."""
    options, bounds = prompt_options(config, engine.tokenizer), limits(config.executor)

    def fits(text: str) -> bool:
        return len(engine.encode(text)) <= config.rollout.max_prompt_tokens

    solver = Solver(buffer, Verifier(executor, bounds, tuple(config.selfplay.imports)), options, config, fits, engine.encode_response)
    proposer = Proposer(buffer, Validator(executor, bounds), options, config, fits)
    evaluations: list[HeldOut | Validation] = []
    if config.eval.items:
        with console.phase("held-out tasks") if console else nullcontext() as phase:
            tasks = generate_tasks(config.eval.items, HELD_OUT_SEED, executor, config.selfplay.induction_pairs, held_out=True, phase=phase)
        evaluations.append(HeldOut(tasks, solver))
    if config.eval.suites:
        from azr_nemo.evaluation.command import make_validation  # only then is its extra needed

        evaluations.append(make_validation(config, engine.tokenizer, executor, fits))
    return Session(SelfPlay(proposer, solver, SCHEDULES[config.selfplay.schedule]), evaluations)


def buffer_path(run_dir: Path) -> Path:
    return run_dir / "buffer.sqlite"


def read_seeds(
    config: RunConfig, files: list[Path], buffer: TaskBuffer, executor: Executor, console: Console, hold_out: bool = False
) -> SeedReport:
    """The seeds of the files, as far as they hold here. hold_out: leave out what held-out evaluation may ask about. Raises as `load_seeds` does."""
    imports, pairs = tuple(config.selfplay.imports), config.selfplay.induction_pairs
    with console.phase("seed files") as phase:
        return load_seeds(files, buffer, executor, imports, limits(config.executor), pairs, phase, hold_out)


def load_seed_files(config: RunConfig, buffer: TaskBuffer, executor: Executor, console: Console) -> None:
    """The seeds of `data.seed_files`, as far as they hold here."""
    if files := [Path(name) for name in config.data.seed_files]:
        for sentence in read_seeds(config, files, buffer, executor, console, config.eval.items > 0).sentences():
            console.note(sentence)


def ask_for_seeds(proposer: Proposer, driver: Driver, check: Callable[[], None] = lambda: None) -> None:
    """Asks the model until each type has enough. check: called after each batch, and may raise to end it. Raises as `SeedingLoop.run` does."""
    found: dict[str, int] = {}

    def progress(at: SeedProgress) -> None:
        found[at.stage] = min(at.valid, at.target)
        phase.expect(at.target * len(stages))
        phase.advance(sum(found.values()) - phase.done, stage=at.stage, batch=at.round)
        driver.console.note(at.sentence())
        check()

    seeding = SeedingLoop(proposer, progress)
    stages = seeding.stages
    with driver.console.phase("seeding") as phase:
        seeded = driver.drive(seeding.run(), "seeding", place=seeding.rounds)
    for warning in seeded.warnings:
        driver.console.note(warning)
