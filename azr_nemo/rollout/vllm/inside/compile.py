"""Imports what a server, its engine and its worker will, so that Python compiles it once: `make vllm` runs this in the new environment."""

import vllm.entrypoints.launchers.api_server.app_state
import vllm.entrypoints.launchers.api_server.entry
import vllm.entrypoints.launchers.api_server.routers
import vllm.entrypoints.rl.online.api_router
import vllm.entrypoints.scale_out.token_in_token_out.serving
import vllm.model_executor.models.llama
import vllm.model_executor.models.qwen2
import vllm.model_executor.models.qwen3
import vllm.v1.engine.async_llm
import vllm.v1.engine.core
import vllm.v1.executor.multiproc_executor
import vllm.v1.worker.cpu_worker  # noqa: F401
