"""Adapters against peft: same logits, same update, the same directory both ways; merged for whoever reads the weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from test_parity import reference_scores
from tiny_models import run_config, training_batch
from torch import Tensor
from transformers import AutoModelForCausalLM

from azr_nemo.conversion.adapters import write_peft
from azr_nemo.conversion.run_checkpoint import open_checkpoint, open_slices
from azr_nemo.errors import UserError
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.megatron.checkpoint import load_checkpoint, save_checkpoint
from azr_nemo.megatron.model import bare
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.planning.parameters import stage_adapters
from azr_nemo.settings.compose import as_yaml
from azr_nemo.settings.schema import RunConfig

MakeActor = Callable[..., Actor]
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SOME = ("q_proj", "v_proj", "up_proj", "down_proj")


def adapted(targets: tuple[str, ...] = ALL, **engine: int) -> RunConfig:
    config = run_config(**engine)
    config.model.lora.rank, config.model.lora.alpha, config.model.lora.targets = 4, 6.0, list(targets)
    config.optim.lr, config.optim.eps, config.optim.grad_clip, config.optim.entropy = 1e-2, 1e-3, 0.5, 0.01
    return config


def weights(actor: Actor) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in export_weights(actor.model, actor.hf_config)}


def checkpoint(actor: Actor, folder: Path) -> Path:
    save_checkpoint(actor, Path(actor.hf_config.name_or_path), folder)
    (folder / "config.yaml").write_text(as_yaml(actor.config))
    return folder


@pytest.fixture(params=[("llama-tied", ALL), ("qwen2-untied", SOME), ("qwen3", ALL)], ids=lambda param: f"{param[0]}-{len(param[1])}")
def trained(request: pytest.FixtureRequest, make_actor: MakeActor) -> tuple[str, Actor]:
    """An actor whose adapters say something: B is no longer zero."""
    family, targets = request.param
    actor = make_actor(family, adapted(targets))
    for layer in bare(actor.model).decoder.layers:
        for second in layer.adapters.lora_B.values():
            second.data.normal_(generator=torch.Generator().manual_seed(layer.layer_number)).mul_(0.1)
    actor.reset_optimizer()
    return family, actor


def test_at_first_adapters_add_nothing_and_only_they_learn(make_actor: MakeActor) -> None:
    plain, actor = make_actor("llama-tied"), make_actor("llama-tied", adapted())
    before = weights(plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(actor).items())
    actor.update(training_batch())
    learnt = sum(parameter.numel() for parameter in bare(actor.model).parameters() if parameter.requires_grad)
    assert learnt == stage_adapters(read_architecture(actor.hf_config), actor.config.model.lora)  # what `azr-nemo plan` counts
    frozen = {name: parameter for name, parameter in bare(actor.model).named_parameters() if not parameter.requires_grad}
    assert all("adapters" not in name for name in frozen)
    theirs = dict(bare(plain.model).named_parameters())
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in frozen.items())
    moved = {name for name, tensor in weights(actor).items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if any(target in name for target in ALL) and name.endswith("weight")}


def test_logits_and_update_are_those_of_peft(trained: tuple[str, Actor], model_dir: Callable[..., Path], tmp_path: Path) -> None:
    family, actor = trained
    batch, folder = training_batch(), tmp_path / "peft"
    write_peft(checkpoint(actor, tmp_path / "saved"), folder, open_slices)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir(family)), folder, is_trainable=True)
    ours = actor.logprobs(batch.prompt_ids, batch.response_ids)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-2, eps=1e-3, weight_decay=actor.config.optim.weight_decay
    )
    loss, tokens = torch.zeros(()), batch.mask.sum()
    for row, response in enumerate(batch.response_ids):
        logp, entropies = reference_scores(model, batch, row, 1.0)
        torch.testing.assert_close(ours[row, : len(response)], logp.detach(), rtol=0, atol=1e-5)
        loss = loss - (batch.advantages[row, : len(response)] * torch.exp(logp - logp.detach())).sum() / tokens
        loss = loss - 0.01 * entropies.sum() / tokens
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    metrics = actor.update(batch)
    assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    expected = model.merge_and_unload().state_dict()
    for name, tensor in weights(actor).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5)


def test_a_peft_directory_is_gone_on_with(trained: tuple[str, Actor], make_actor: MakeActor, tmp_path: Path) -> None:
    family, actor = trained
    folder = tmp_path / "peft"
    write_peft(checkpoint(actor, tmp_path / "saved"), folder, open_slices)
    config = adapted(tuple(actor.config.model.lora.targets))
    config.model.lora.path = str(folder)
    again = weights(make_actor(family, config))
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(actor).items())
    config.model.lora.rank = 8
    with pytest.raises(UserError, match=r"model\.lora\.rank=8, but the adapters in .* have r=4: set model\.lora\.rank=4"):
        make_actor(family, config)


def test_a_checkpoint_is_read_as_the_merged_model(trained: tuple[str, Actor], tmp_path: Path) -> None:
    _, actor = trained
    ours = weights(actor)
    with open_checkpoint(checkpoint(actor, tmp_path)) as (_, stream):
        read = dict(stream)
        assert read.keys() == ours.keys()
        for name, tensor in read.items():
            torch.testing.assert_close(tensor, ours[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_resumed_run_learns_as_one_that_was_not_interrupted(make_actor: MakeActor, tmp_path: Path, recompute: bool) -> None:
    config = adapted(recompute=recompute)
    actor = make_actor("llama-tied", config)
    actor.update(training_batch(seed=0))
    resumed = make_actor("llama-tied", config)
    load_checkpoint(resumed, checkpoint(actor, tmp_path))
    for other in (actor, resumed):
        other.update(training_batch(seed=1))
    again = weights(resumed)
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(actor).items())
    plain = make_actor("llama-tied", adapted())
    for seed in (0, 1):
        plain.update(training_batch(seed=seed))
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(tensor, again[name], rtol=0, atol=1e-5)


def test_a_checkpoint_of_another_kind_is_refused_in_a_sentence(make_actor: MakeActor, tmp_path: Path) -> None:
    checkpoint(make_actor("llama-tied"), tmp_path)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_checkpoint(make_actor("llama-tied", adapted()), tmp_path)
    with pytest.raises(UserError, match=r"has no adapters: the run had model\.lora\.rank=0"):
        write_peft(tmp_path, tmp_path / "peft", open_slices)
