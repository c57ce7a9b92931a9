"""The warm start as part of a run: its weights come from the cache, or are trained and put there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from azr_nemo.megatron.controller import MegatronEngine
from azr_nemo.megatron.huggingface import read_config, save_hf
from azr_nemo.models import cache_dir
from azr_nemo.observe.console import Console
from azr_nemo.sandbox.executor import Executor
from azr_nemo.settings.schema import RunConfig
from azr_nemo.trainer.session import prompt_options
from azr_nemo.warmup.generator import generate_tasks
from azr_nemo.warmup.warm_start import batches, warm_start, warm_start_key


def warmed_directory(config: RunConfig, model_dir: Path) -> Path:
    """Where this configuration's warm-started weights are, or will be."""
    return cache_dir() / "warm" / f"{model_dir.name}-{warm_start_key(model_dir, config)}"


def warm_up(
    engine: MegatronEngine,
    config: RunConfig,
    model_dir: Path,
    target: Path,
    executor: Executor,
    console: Console,
    check: Callable[[], None],
) -> None:
    """Trains the engine on generated easy tasks and keeps the weights in `target`, written aside and renamed. check: called at every step, and
    may raise to end it."""

    def progress(step: int, loss: float) -> None:
        phase.advance(1, loss=loss)
        check()

    with console.phase("warm-start tasks") as running:
        tasks = generate_tasks(config.warmup.programs, config.warmup.seed, executor, config.selfplay.induction_pairs, phase=running)
    stream = batches(tasks, prompt_options(config, engine.tokenizer), config, engine.encode, engine.encode_response)
    with console.phase("warm_start", config.warmup.steps) as phase:
        warm_start(engine, stream, config.warmup, progress)
    with console.phase("keep warm-started weights"):
        _keep(engine, model_dir, target)
    engine.refit()


def _keep(engine: MegatronEngine, model_dir: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".warm-") as temporary:
        made = Path(temporary) / "model"
        save_hf(engine.weights(), read_config(model_dir), model_dir, made)
        if not target.is_dir():
            os.rename(made, target)
