"""What a run is made of, put together from its configuration: executor, buffer, roles, held-out tasks."""

from dataclasses import dataclass
from pathlib import Path

from azr_nemo.config import ExecutorConfig, RunConfig
from azr_nemo.sandbox.executor import Executor, Limits
from azr_nemo.sandbox.fusion import FusionExecutor
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.engine import Engine
from azr_nemo.selfplay.proposer import Proposer
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.selfplay.validation import Validator
from azr_nemo.selfplay.verification import Verifier
from azr_nemo.tasks.task import PromptOptions
from azr_nemo.warmup.generator import generate_tasks
from azr_nemo.warmup.heldout import HeldOut

HELD_OUT_SEED = 7  # the same tasks for every run, so that runs can be compared


def limits(config: ExecutorConfig) -> Limits:
    return Limits(config.wall_s, config.cpu_s, config.memory_mb, config.output_chars)


def make_executor(config: ExecutorConfig) -> Executor:
    """The configured executor, started. Raises ExecutorUnavailable when no safe one can be had."""
    if config.name == "sandbox_fusion":
        return FusionExecutor(config.endpoints, limits(config), config.concurrency, config.queue, config.attempts, config.patience_s)
    return LocalPool(config.workers, limits(config), config.recycle_after, config.queue, config.allow_unjailed, modules=config.modules)


def prompt_options(config: RunConfig) -> PromptOptions:
    selfplay = config.selfplay
    return PromptOptions(
        selfplay.prompt_style,
        selfplay.induction_pairs,
        tuple(selfplay.imports),
        strip_comments=selfplay.strip_comments,
        strip_globals=selfplay.strip_globals,
        strip_prints=selfplay.strip_prints,
    )


@dataclass(frozen=True)
class Session:
    """The parts of a run that need an engine."""

    selfplay: SelfPlay
    heldout: HeldOut | None

    @property
    def proposer(self) -> Proposer:
        return self.selfplay.proposer


def make_session(config: RunConfig, engine: Engine, executor: Executor, buffer: TaskBuffer) -> Session:
    """The two roles over the buffer, and the held-out tasks when `eval.items` asks for them."""
    options, bounds = prompt_options(config), limits(config.executor)

    def fits(text: str) -> bool:
        return len(engine.encode(text)) <= config.rollout.max_prompt_tokens

    solver = Solver(buffer, Verifier(executor, bounds, tuple(config.selfplay.imports)), options, config, fits)
    proposer = Proposer(buffer, Validator(executor, bounds), options, config, fits)
    heldout = None
    if config.eval.items:
        tasks = generate_tasks(config.eval.items, HELD_OUT_SEED, executor, config.selfplay.induction_pairs, held_out=True)
        heldout = HeldOut(tasks, solver)
    return Session(SelfPlay(proposer, solver), heldout)


def buffer_path(run_dir: Path) -> Path:
    return run_dir / "buffer.sqlite"
