"""Which weights a model has, by its Hugging Face configuration: a stream that does not fit is refused before a sample is drawn from it."""

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from azr_nemo.errors import UserError


class Expected:
    """Names and shapes of a model's weights. A tied output layer may come or stay away."""

    def __init__(self, config: PretrainedConfig) -> None:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config))  # from_config writes into the configuration it is given
        self.shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters(remove_duplicate=False)}
        self.parameters = sum(weight.numel() for weight in model.parameters())
        self._needed = set(self.shapes) - ({"lm_head.weight"} if config.tie_word_embeddings else set())

    def checked(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Passes the stream on. Raises UserError at a weight that the model does not have so, and at the end when some never came."""
        missing = set(self._needed)
        for name, tensor in weights:
            check_weight(name, tensor, self.shapes)
            missing.discard(name)
            yield name, tensor
        check_complete(missing)


def check_weight(name: str, tensor: Tensor, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises UserError for a weight that the model does not have, or not in this shape."""
    if shapes.get(name) != tuple(tensor.shape):
        expected = f"{shapes[name]}" if name in shapes else "no such weight"
        raise UserError(f"weight {name} {tuple(tensor.shape)} does not fit the model, which has {expected}: check model.path")


def check_complete(missing: set[str]) -> None:
    """Raises UserError naming the weights that never came."""
    if missing:
        raise UserError(f"the weights lack {', '.join(sorted(missing))}: check that model.path and the checkpoint are the same model")
