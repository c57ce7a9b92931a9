"""The real NeMo restores what `--to nemo` writes, and what it saves converts back: MegatronGPTActorModel on the CPU, in one process a model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forking import Job
from jobs import aligner_settings
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config

from azr_nemo.aligner import cpu
from azr_nemo.conversion.convert import convert

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "vocab_size": 264,
    "eos_token_id": 256,
    "bos_token_id": None,
}
CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True, rope_theta=5000.0),
    "qwen2": lambda: Qwen2Config(**SIZES, tie_word_embeddings=False, rms_norm_eps=1e-6),
}
TOKENS = (torch.arange(96).reshape(4, 24) * 7919 + 13) % 256


def write_model(folder: Path, family: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: index for index, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)


def restore_change_and_save(nemo: Path, out: Path) -> None:
    """In the process that holds the model: log-probabilities of what NeMo restores; other weights, their log-probabilities, NeMo's two formats."""
    from nemo.utils.callbacks.dist_ckpt_io import DistributedCheckpointIO
    from nemo_aligner.models.nlp.gpt.megatron_gpt_ppo_actor import MegatronGPTActorModel
    from nemo_aligner.utils.train_script_utils import init_distributed, resolve_and_create_trainer
    from nemo_aligner.utils.utils import load_from_nemo

    from azr_nemo.aligner import gpt_model as aligner

    config = aligner.actor_config(aligner_settings(nemo, out), aligner.read_model_config(nemo), on_cpu=True)
    runs = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "precision": 32, "logger": False, "enable_checkpointing": False}
    whole = OmegaConf.create({"trainer": {**runs, "use_distributed_sampler": False, "max_steps": 1, "ppo": {}}, "model": config})
    trainer = resolve_and_create_trainer(whole, "ppo")
    actor = load_from_nemo(MegatronGPTActorModel, whole.model, trainer, strict=True, restore_path=str(nemo))
    assert type(actor) is MegatronGPTActorModel
    init_distributed(trainer, actor, False)
    cpu.seed_model_parallel(1)
    actor.eval()
    restored = actor.get_inference_log_probs(TOKENS).clone()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    changed = actor.get_inference_log_probs(TOKENS).clone()
    save_file({"restored": restored.contiguous(), "changed": changed.contiguous()}, out / "logprobs.safetensors")
    actor.save_to(str(out / "saved.nemo"))
    write_items_as_this_torch_does()
    for name in ("zarr", "torch_dist"):
        (out / name).mkdir()
        DistributedCheckpointIO(save_ckpt_format=name).save_checkpoint(actor.sharded_state_dict(), str(out / name / "model_weights"))
        OmegaConf.save(actor.cfg, out / name / "model_config.yaml")


def write_items_as_this_torch_does() -> None:
    """Megatron 0.10 calls a function of torch's that has since got two more arguments; the format is the same."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from torch.distributed.checkpoint._extension import StreamTransformExtension
    from torch.distributed.checkpoint.filesystem import SerializationFormat, _StorageWriterTransforms, _write_item

    none: list[StreamTransformExtension] = []
    transforms = _StorageWriterTransforms(none)
    filesystem_async._write_item = lambda *arguments: _write_item(transforms, *arguments, SerializationFormat.TORCH_SAVE)


@torch.no_grad()
def logprobs_of_transformers(folder: Path) -> Tensor:
    """[4, 23], of every token but the first."""
    logits = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()(TOKENS).logits
    return logits[:, :-1].log_softmax(-1).gather(-1, TOKENS[:, 1:, None])[..., 0]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", CONFIGS)
def test_nemo_restores_our_file_and_what_it_saves_becomes_the_same_model_in_transformers(tmp_path: Path, family: str) -> None:
    cpu.prepare()
    write_model(tmp_path / "hf", family)
    convert(tmp_path / "hf", tmp_path / "ours.nemo", "nemo")
    job = Job(lambda: restore_change_and_save(tmp_path / "ours.nemo", tmp_path), tmp_path, "restore")
    assert job.wait() == [0], job.output()
    told = load_file(tmp_path / "logprobs.safetensors")
    torch.testing.assert_close(told["restored"], logprobs_of_transformers(tmp_path / "hf"), rtol=0, atol=1e-5)
    assert (told["changed"] - told["restored"]).abs().max() > 1e-2
    convert(tmp_path / "saved.nemo", tmp_path / "back", "hf")
    torch.testing.assert_close(told["changed"], logprobs_of_transformers(tmp_path / "back"), rtol=0, atol=1e-5)
    saved = load_file(tmp_path / "back" / "model.safetensors")
    assert saved.keys() == load_file(tmp_path / "hf" / "model.safetensors").keys()
    for name in ("zarr", "torch_dist"):
        convert(tmp_path / name, tmp_path / f"from_{name}", "hf")
        again = load_file(tmp_path / f"from_{name}" / "model.safetensors")
        assert again.keys() == saved.keys()
        assert all(torch.equal(again[key], saved[key]) for key in saved)
    assert AutoTokenizer.from_pretrained(tmp_path / "back").encode("f(1)") == AutoTokenizer.from_pretrained(tmp_path / "hf").encode("f(1)")
