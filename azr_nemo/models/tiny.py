"""A Llama-shaped model of under one million parameters with random weights, and its tokenizer: for tests and experiments.

The tokenizer has a token for each piece that the short prompts and the generated programs are made of, one for each printable character,
and one for each byte, so that any text survives encoding and decoding.
"""

import os
import tempfile
from pathlib import Path

KEYWORDS = [
    "```python\n", "```input\n", "```output\n", "```message\n", "```\n", "# deduction\n", "# abduction\n", "# induction\n",
    "# propose deduction", "# propose abduction", "# propose induction\n", " lines ", "# new\n", "def f(x):\n    ", "def f(x, y):\n    ",
    "return ", "    ", "for i in ", "if ", "else:", "while ", "y = ", "z = ", "t = ", "sorted(", "''.join(", "len(", "sum(", "max(", "min(",
    "abs(", "str(", "list(", "range(", "set(", "dict(", "int(", ".append(", ".upper()", ".lower()", ".replace(", ".count(", ".find(",
    ".items()", ".keys()", ".values()", "[::-1]", "[::2]", " + ", " - ", " * ", " % ", " // ", " > ", " < ", " == ", " for ", " if ",
    " in ", " else ", " and ", " or ", "not ", ", ", ": ", "True", "False", "None", "def ", "):\n    ",
]  # fmt: skip
END, PAD = "<eos>", "<pad>"
SHAPE = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 352}


def tiny(cache: Path, seed: int) -> Path:
    """The model's directory in the cache: float32 random weights drawn from the seed."""
    target = cache / "models" / f"tiny-{SHAPE['hidden_size']}x{SHAPE['num_hidden_layers']}-seed{seed}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tiny-") as temporary:
        made = Path(temporary) / "tiny"
        _write(made, seed)
        try:
            os.rename(made, target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise
    return target


def tokenizer():
    """The tokenizer as a PreTrainedTokenizerFast."""
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    alphabet = [PAD, END, *(f"<0x{byte:02X}>" for byte in range(256)), "\n", "\t", *(chr(code) for code in range(32, 127))]
    inner = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, [], byte_fallback=True, unk_token=PAD))
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    inner.add_special_tokens([PAD, END])
    inner.add_tokens([AddedToken(word, normalized=False) for word in KEYWORDS])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False)


def config(words):
    """The model's LlamaConfig. words: its tokenizer."""
    from transformers import LlamaConfig

    return LlamaConfig(
        **SHAPE,
        vocab_size=-(-len(words) // 16) * 16,  # divisible by any tensor parallelism a test would use
        max_position_embeddings=1024,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        initializer_range=0.05,
    )


def _write(out: Path, seed: int) -> None:
    import torch
    from transformers import GenerationConfig, LlamaForCausalLM

    words = tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config(words)).float()
    model.generation_config = GenerationConfig(eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    model.save_pretrained(out)
    words.save_pretrained(out)
