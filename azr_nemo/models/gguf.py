"""GGUF as a Hugging Face directory: the Llama and Qwen2 families, in bfloat16, one tensor at a time.

transformers reads GGUF too, but with the whole model in float32 several times over, and it will not save what it read.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf import GGUFReader
    from torch import Tensor
    from transformers import PretrainedConfig

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
WHOLE = {EMBEDDING: "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
OF_A_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


SIZES = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length", "rope_theta": "rope.freq_base", "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}  # fmt: skip


def convert(
    gguf: Path, out: Path, ends: tuple[int, ...], padding: int, repair: Callable[[Any], None], begun: Callable[[int], Callable[[], None]]
) -> None:
    """Writes config.json, generation settings, tokenizer and model.safetensors to `out`. The bfloat16 weights and one tensor in float32 are in memory.

    ends: the end tokens. repair: mends the tokenizer that transformers makes of the file. begun: told how many tensors there are; what it
    returns is called after each.
    """
    from gguf import GGUFReader
    from transformers import AutoTokenizer, GenerationConfig

    from azr_nemo.megatron.huggingface import write_companions, write_shards

    out.mkdir()
    reader = GGUFReader(gguf)
    config = read_config(reader)
    config.eos_token_id, config.pad_token_id = list(ends) if len(ends) > 1 else ends[0], padding
    dtype = write_shards(tensors(reader, config, begun), out, shard_bytes=1 << 62)
    write_companions({}, config, dtype, out)
    GenerationConfig(eos_token_id=config.eos_token_id, pad_token_id=padding).save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    repair(tokenizer)
    tokenizer.save_pretrained(out)


def read_config(reader: "GGUFReader") -> "PretrainedConfig":
    """The sizes that the file states. The small models of both families tie their head to the embedding."""
    from transformers import AutoConfig

    def value(key: str) -> Any:
        found = reader.fields[key].contents()
        return float(f"{found:.7g}") if isinstance(found, float) else found  # stored in float32: 1e-06 is read as 9.99999997e-07

    family = value("general.architecture")
    sizes = {name: value(f"{family}.{key}") for name, key in SIZES.items()}
    (vocabulary,) = (int(tensor.shape[1]) for tensor in reader.tensors if tensor.name == EMBEDDING)
    return AutoConfig.for_model(family, **sizes, vocab_size=vocabulary, tie_word_embeddings=True)


def tensors(reader: "GGUFReader", config: "PretrainedConfig", begun: Callable[[int], Callable[[], None]]) -> Iterator[tuple[str, "Tensor"]]:
    """The weight stream of the file, in bfloat16 under Hugging Face names. Of the tied matrix, which some files hold twice, that of the head is
    taken: it is stored more exactly."""
    import torch
    from gguf import dequantize

    found = {tensor.name: tensor for tensor in reader.tensors}
    if HEAD in found:
        found[EMBEDDING] = found.pop(HEAD)
    done = begun(len(found))
    for name, tensor in found.items():
        full = torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        if config.model_type == "llama" and name.endswith((".attn_q.weight", ".attn_k.weight")):
            heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
            full = _halves(full, heads)
        yield hugging_face_name(name), full.to(torch.bfloat16)
        done()


def hugging_face_name(name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`. Raises KeyError for a tensor that these families do not have."""
    if name in WHOLE:
        return WHOLE[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{OF_A_LAYER[part]}.{kind}"


def _halves(weight: "Tensor", heads: int) -> "Tensor":
    """Rotary position embeddings turn neighbouring rows of a head in Llama's GGUF files, rows half a head apart in Hugging Face's."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
