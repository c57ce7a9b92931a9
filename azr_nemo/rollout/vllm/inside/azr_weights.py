"""vLLM's worker extension (`--worker-extension-cls azr_weights.Pieces`): new weights into the running engine, from pieces in shared memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

if TYPE_CHECKING:
    from torch import Tensor


class Pieces:
    """Mixed into vLLM's worker, whose `model_runner` it uses."""

    model_runner: Any

    def load_pieces(self, paths: list[str]) -> dict[str, int]:
        """Loads safetensors files with full tensors under Hugging Face names; each worker takes its own slices of them."""
        count = 0

        def tensors() -> Iterator[tuple[str, "Tensor"]]:
            nonlocal count
            for path in paths:
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118 - not a dictionary
                        count += 1
                        yield name, file.get_tensor(name)

        self.model_runner.reload_weights(weights_iterator=tensors())
        self._pack_heads()
        return {"tensors": count}

    def _pack_heads(self) -> None:
        """On a CPU vLLM keeps a packed copy of the output layer, which a reload leaves as it was: tied heads went on with the old weights."""
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

        for module in self.model_runner.get_model().modules():
            if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
                module.quant_method.process_weights_after_loading(module)
