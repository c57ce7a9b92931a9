"""A GGUF file becomes the model that it was made of."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quantize
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from azr_nemo.models.gguf import OF_A_LAYER, WHOLE, hugging_face_name, read_config, tensors

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 96,
    "max_position_embeddings": 128, "rope_theta": 50000.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
}  # fmt: skip
CONFIGS = {"llama": LlamaConfig(**SIZES), "qwen2": Qwen2Config(**SIZES)}
NAMES = {value: key for key, value in (WHOLE | OF_A_LAYER).items()}


def neighbouring(weight: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter permutes Llama's queries and keys."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write(path, config: PretrainedConfig, state: dict[str, torch.Tensor], head: bool):
    writer = GGUFWriter(path, config.model_type)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(128)
    writer.add_rope_freq_base(50000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    for name, tensor in state.items():
        value = tensor.numpy()
        if name in NAMES:
            given = NAMES[name]
        else:
            _, _, layer, part, kind = name.split(".", 3)[:3] + list(name.split(".", 3)[3].rsplit(".", 1))
            given = f"blk.{layer}.{NAMES[part]}.{kind}"
        if config.model_type == "llama" and given.endswith((".attn_q.weight", ".attn_k.weight")):
            value = neighbouring(value, 4 if "attn_q" in given else 2)
        if name == "model.embed_tokens.weight" and head:
            writer.add_tensor("output.weight", value)
            coarse = quantize(value, GGMLQuantizationType.Q4_0)
            writer.add_tensor(given, coarse, raw_dtype=GGMLQuantizationType.Q4_0)
        else:
            writer.add_tensor(given, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_file_gives_back_the_model_that_it_was_made_of(tmp_path, family, head):
    config = CONFIGS[family]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = {name: torch.randn_like(tensor) for name, tensor in model.named_parameters()}
    write(tmp_path / "model.gguf", config, state, head)
    reader = GGUFReader(tmp_path / "model.gguf")
    counted: list[int] = []

    def begun(count):
        counted.append(count)
        return lambda: counted.append(1)

    found = read_config(reader)
    assert {key: getattr(found, key) for key in SIZES if key != "rope_theta"} == {key: SIZES[key] for key in SIZES if key != "rope_theta"}
    assert found.rope_parameters["rope_theta"] == 50000.0
    stream = dict(tensors(reader, found, begun))
    assert counted == [len(state)] + [1] * len(state)
    assert stream.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(stream[name], tensor.to(torch.bfloat16)), name


def test_a_tensor_of_another_family_is_refused():
    with pytest.raises(KeyError, match="ffn_gate_exps"):
        hugging_face_name("blk.0.ffn_gate_exps.weight")
