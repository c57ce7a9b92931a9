"""One rank that trains and one that samples. `split_job.py MODEL_DIR OUT`: runs every case and writes OUT/<case>.json.

whole      samples, learns, hands the weights over and samples again; beside it the same in one process, which does both
beside     the sampler is asked while the trainer learns
killed     the sampler dies while it samples
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lost_rank_job import PROMPTS, WATCHDOG_S, fork_rank
from tiny_models import run_config, training_batch

import azr_nemo.rollout
from azr_nemo.megatron.controller import MegatronEngine, Worker
from azr_nemo.megatron.sampling_ranks import serve_samples
from azr_nemo.selfplay.exchange import PromptBatch
from azr_nemo.settings.schema import RunConfig

CASES = ("whole", "beside", "killed")


def configured(split: bool) -> RunConfig:
    config = run_config()
    config.runtime.watchdog_s = WATCHDOG_S
    config.rollout.temperature = 1.0
    if split:
        config.placement, config.cluster.sampler_ranks = "split", 1
    return config


def drawn(engine: MegatronEngine, seed: int) -> list[Any]:
    groups = engine.generate(PromptBatch(PROMPTS, "solve"), seed=seed)
    return [[(c.response_ids, c.logprobs, c.finished, c.weight_version) for c in group] for group in groups]


def lead(config: RunConfig, model_dir: Path, case: str) -> Any:
    engine = MegatronEngine(config, model_dir, Worker(config, model_dir))
    try:
        found = [drawn(engine, 0)]
        if case == "beside":
            thread = threading.Thread(target=lambda: found.append(drawn(engine, 1)))
            thread.start()
            engine.update(training_batch(), refit=False)
            thread.join()
            engine.refit()
        else:
            engine.update(training_batch())
        return [*found, drawn(engine, 2)]
    finally:
        engine.close()


def run_rank(model_dir: Path, case: str, rank: int | None) -> Any:
    """rank: None for one process that does both."""
    config = configured(split=rank is not None)
    if not rank:
        return lead(config, model_dir, case)
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
