"""One rank that trains and one that samples. `split_job.py MODEL_DIR OUT`: runs every case and writes OUT/<case>.json.

whole      samples, learns, hands the weights over and samples again; beside it the same in one process, which does both
beside     the sampler is asked while the trainer learns
between    it draws on by the weights that are handed over meanwhile (`rollout.update_in_flight`)
killed     the sampler dies while it samples
raised     it fails while it samples, in the thread that it then has for that
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lost_rank_job import PROMPTS, WATCHDOG_S, fork_rank
from tiny_models import EchoRollout, run_config, training_batch
from torch import Tensor

import azr_nemo.rollout
from azr_nemo.megatron.controller import MegatronEngine, Worker
from azr_nemo.megatron.generation import OnSample
from azr_nemo.megatron.sampling_ranks import serve_samples
from azr_nemo.rollout.engine import Sample, SampleRequest
from azr_nemo.selfplay.exchange import PromptBatch
from azr_nemo.settings.schema import RunConfig

CASES = ("whole", "beside", "between", "killed", "raised")
IN_FLIGHT = ("between", "raised")


class BetweenTokens(EchoRollout):
    """Has drawn one token of each sample when it waits for new weights, which draw the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Event()

    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        super().refit(weights, version)
        if version:
            self.changed.set()

    def generate(self, requests: list[SampleRequest], on_sample: OnSample | None = None) -> list[list[Sample]]:
        began = self.version
        assert self.changed.wait(WATCHDOG_S)

        def mixed(index: int, k: int, sample: Sample) -> None:
            assert on_sample is not None
            newer = ((1, self.version),) if self.version != began else ()
            on_sample(index, k, replace(sample, weight_version=began, newer=newer))

        return super().generate(requests, mixed)


def failing(*_: Any) -> Any:
    raise ValueError("the sampler's own mistake")


def configured(split: bool, case: str) -> RunConfig:
    config = run_config()
    config.rollout.update_in_flight = case in IN_FLIGHT
    config.runtime.watchdog_s = WATCHDOG_S
    config.rollout.temperature = 1.0
    if split:
        config.placement, config.cluster.sampler_ranks = "split", 1
    return config


def drawn(engine: MegatronEngine, seed: int) -> list[Any]:
    groups = engine.generate(PromptBatch(PROMPTS, "solve"), seed=seed)
    return [[(c.response_ids, c.logprobs, c.finished, c.weight_version, c.newer) for c in group] for group in groups]


def lead(config: RunConfig, model_dir: Path, case: str) -> Any:
    engine = MegatronEngine(config, model_dir, Worker(config, model_dir))
    try:
        found = [] if case == "between" else [drawn(engine, 0)]
        if case in ("beside", "between"):
            thread = threading.Thread(target=lambda: found.append(drawn(engine, 1)))
            thread.start()
            engine.update(training_batch(), refit=False)
            if case == "between":
                engine.refit()
            thread.join()
            if case == "beside":
                engine.refit()
        else:
            engine.update(training_batch())
        return [*found, drawn(engine, 2)]
    finally:
        engine.close()


def run_rank(model_dir: Path, case: str, rank: int | None) -> Any:
    """rank: None for one process that does both."""
    config = configured(split=rank is not None, case=case)
    if not rank:
        return lead(config, model_dir, case)
    if case in IN_FLIGHT:
        between = BetweenTokens()
        if case == "raised":
            between.generate = failing  # type: ignore[method-assign]
        azr_nemo.rollout.make_rollout = lambda *_: between
    if case == "killed":
        make = azr_nemo.rollout.make_rollout

        def dying(*args: Any) -> Any:
            rollout = make(*args)
            rollout.generate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            return rollout

        azr_nemo.rollout.make_rollout = dying
    return sys.exit(serve_samples(config, model_dir))


def fork(model_dir: Path, out: Path, case: str, rank: int | None, port: int) -> int:
    def work() -> None:
        found = run_rank(model_dir, case, rank)
        (out / f"{case}-{rank}.found").write_text(json.dumps(found))

    return fork_rank(out / f"{case}-{rank}.log", rank, 2, port, work)


def main(model_dir: Path, out: Path) -> None:
    for case in CASES:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        began = time.monotonic()
        ranks: list[int | None] = [0, 1, *([None] if case == "whole" else [])]
        pids = {fork(model_dir, out, case, rank, port): rank for rank in ranks}
        codes = {str(pids[pid]): os.waitstatus_to_exitcode(status) for pid, status in (os.wait() for _ in ranks)}
        said = {str(rank): (out / f"{case}-{rank}.log").read_text() for rank in ranks}
        files = {str(rank): out / f"{case}-{rank}.found" for rank in ranks}
        found = {rank: json.loads(path.read_text()) for rank, path in files.items() if path.is_file()}
        (out / f"{case}.json").write_text(json.dumps({"codes": codes, "said": said, "found": found, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
