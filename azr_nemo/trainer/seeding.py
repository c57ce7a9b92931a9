"""Seeds for a run: those of files, then what the model proposes until there are enough, each with a bar."""

from collections.abc import Callable
from pathlib import Path

from azr_nemo.observe.console import Console
from azr_nemo.sandbox.configured import limits
from azr_nemo.sandbox.executor import Executor
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.proposer import Proposer
from azr_nemo.selfplay.seed_files import SeedReport, load_seeds
from azr_nemo.selfplay.self_seeding import SeedingLoop, SeedProgress
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.driver import Driver


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
