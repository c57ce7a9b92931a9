"""How many parameters a model has, and how many of them one rank holds: the counts that `build_model` makes, exactly."""

from azr_nemo.megatron.architecture import ROW_PARALLEL, Architecture, linear_shapes
from azr_nemo.settings.machine import LoraConfig


def layer_parameters(model: Architecture, tensor: int = 1) -> int:
    """Of one decoder layer on one of `tensor` tensor-parallel ranks: matrices and their biases are cut, normalisation weights are not."""
    attention = model.head_dim * (model.heads + 2 * model.kv_heads)
    cut = attention * model.hidden + model.heads * model.head_dim * model.hidden + 3 * model.ffn * model.hidden
    if model.qkv_bias:
        cut += attention
    whole = 2 * model.hidden + (2 * model.head_dim if model.qk_norm else 0)
    return cut // tensor + whole


def vocabulary_parameters(model: Architecture, tensor: int = 1) -> int:
    """Of the embedding, and of the output layer, on one rank: its rows of the padded vocabulary."""
    return model.padded_vocab(tensor) // tensor * model.hidden


def stage_parameters(model: Architecture, tensor: int = 1, pipeline: int = 1, stage: int = 0) -> int:
    """Of one rank of pipeline stage `stage`. A tied model that is cut into stages keeps a second copy of its embedding on the last one."""
    first, last = stage == 0, stage == pipeline - 1
    count = model.layers // pipeline * layer_parameters(model, tensor)
    if first:
        count += vocabulary_parameters(model, tensor)
    if last:
        count += model.hidden + (0 if model.tied and first else vocabulary_parameters(model, tensor))
    return count


def stage_adapters(model: Architecture, lora: LoraConfig, tensor: int = 1, pipeline: int = 1) -> int:
    """Of the adapters on one rank of a pipeline stage (azr_nemo.megatron.lora); 0 where the weights themselves learn."""
    count = 0
    for target, (outputs, inputs) in linear_shapes(model).items():
        if lora.rank and target in lora.targets:
            cut, whole = (inputs, outputs) if target in ROW_PARALLEL else (outputs, inputs)
            count += lora.rank * (cut // tensor + whole)
    return model.layers // pipeline * count


def total_parameters(model: Architecture) -> int:
    """Of the whole model, a tied head counted once: what its Hugging Face file holds."""
    return stage_parameters(model)


def multiplied_parameters(model: Architecture) -> int:
    """Of the layers' matrices: what every token is multiplied with, whether it is learnt from or not. The head is counted apart."""
    attention = model.head_dim * (2 * model.heads + 2 * model.kv_heads)
    return model.layers * model.hidden * (attention + 3 * model.ffn)
