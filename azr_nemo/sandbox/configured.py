"""The configured executor."""

from azr_nemo.sandbox.executor import Executor, Limits
from azr_nemo.sandbox.local.pool import LocalPool
from azr_nemo.settings.schema import ExecutorConfig


def limits(config: ExecutorConfig) -> Limits:
    return Limits(config.wall_s, config.cpu_s, config.memory_mb, config.output_chars)


def make_executor(config: ExecutorConfig) -> Executor:
    """The configured executor, started. Raises ExecutorUnavailable when no safe one can be had."""
    if config.name == "sandbox_fusion":
        from azr_nemo.sandbox.fusion import FusionExecutor  # HTTP clients, which a local pool does without

        return FusionExecutor(config.endpoints, limits(config), config.concurrency, config.queue, config.attempts, config.patience_s)
    return LocalPool(config.workers, limits(config), config.recycle_after, config.queue, config.allow_unjailed, modules=config.modules)
