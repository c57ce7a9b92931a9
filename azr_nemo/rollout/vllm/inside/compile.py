"""Imports what a server, its engine and its worker will, so that Python compiles it once: `make vllm` runs this in the new environment."""

import vllm.v1.worker.cpu_worker  # noqa: F401
