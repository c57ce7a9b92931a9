"""The engine that a run would sample with, where it is a server in an environment of its own: whether it starts there and answers."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import torch

from azr_nemo.doctor.findings import Finding, error
from azr_nemo.errors import UserError
from azr_nemo.megatron.platform import choose_platform
from azr_nemo.models import tiny
from azr_nemo.rollout.engine import SampleRequest
from azr_nemo.rollout.expected import Expected
from azr_nemo.settings.machine import RolloutConfig

TOKENS = 8


def rollouts(config: RolloutConfig) -> Iterator[Finding]:
    """With rollout=vllm: its endpoints are asked, or a server is started with a tiny model and draws a sample."""
    if config.name != "vllm":
        return
    for url in config.endpoints:
        yield _asked(url)
    if not config.endpoints:
        yield _tried(config)


def _asked(url: str) -> Finding:
    try:
        status = httpx.get(f"{url.rstrip('/')}/health", trust_env=False, timeout=10.0).status_code
    except httpx.TransportError as problem:
        return error(f"vllm {url}", str(problem) or type(problem).__name__, "start the server, or take it out of rollout.endpoints")
    # A server behind the guard answers 401 to who does not know its secret, and so is there.
    return Finding(f"vllm {url}", "answers") if status in (200, 401) else error(f"vllm {url}", f"answers {status}", "look at its log")


def _tried(config: RolloutConfig) -> Finding:
    from azr_nemo.rollout.vllm.vllm_rollout import VllmRollout

    began = time.monotonic()
    small = replace(config, max_prompt_tokens=64, max_propose_tokens=TOKENS, max_solve_tokens=TOKENS, max_batch_rows=2, tensor_parallel=1)
    shape = tiny.config(tiny.tokenizer())
    with tempfile.TemporaryDirectory() as folder:
        engine = None
        try:
            engine = VllmRollout(shape, torch.bfloat16, [], choose_platform("auto").device, small, log=Path(folder) / "vllm.log")
            engine.refit((name, torch.full(size, 0.01)) for name, size in Expected(shape).shapes.items() if name != "lm_head.weight")
            ((sample,),) = engine.generate([SampleRequest((5, 6, 7), 1, TOKENS, 1.0, 1)])
        except (UserError, RuntimeError) as problem:
            return error("vllm", str(problem), "`make vllm` makes its environment for a CPU; docs/engines.md says how on GPUs")
        finally:
            if engine is not None:
                engine.close()
    return Finding(
        "vllm", f"started, took weights and drew {len(sample.token_ids)} tokens of a tiny model in {time.monotonic() - began:.0f} s"
    )
