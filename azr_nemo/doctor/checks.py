"""All checks, in the order of a reader's interest."""

import os
from collections.abc import Iterator

from azr_nemo.doctor import ranks
from azr_nemo.doctor.disk import disk
from azr_nemo.doctor.execution import execution
from azr_nemo.doctor.findings import Finding
from azr_nemo.doctor.hardware import devices, fabric, versions
from azr_nemo.doctor.recipe import model
from azr_nemo.doctor.rollouts import rollouts
from azr_nemo.settings.schema import RunConfig

ABOUT_RUN = ("recipe=", "run_dir=", "model", "engine", "cluster", "rollout")


def examine(config: RunConfig, about_run: bool, seconds: float, bound_s: float) -> Iterator[Finding]:
    """Findings of this machine; with about_run, of a run with these settings on it; under torchrun, of all ranks together.

    seconds: of the all-reduce. bound_s: the longest wait for a rank.
    """
    yield from versions()
    yield from devices(config, about_run)
    yield from fabric()
    yield from execution(config.executor)
    yield from disk(config, about_run)
    if about_run:
        yield from model(config)
        yield from rollouts(config.rollout)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield from ranks.ranks(config, seconds, bound_s)
    else:
        yield Finding("ranks", "a single process: torchrun --nproc-per-node N -m azr_nemo doctor asks all ranks of a job")


def about_a_run(overrides: list[str]) -> bool:
    """Whether these overrides describe a run, rather than the executor alone."""
    return any(override.startswith(ABOUT_RUN) for override in overrides)
