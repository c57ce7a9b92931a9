"""A finished run's checkpoint is a model that others can load, and says the same there."""

import pytest
import torch
from run_server import command
from safetensors.torch import load_file
from tiny_run import finish, start
from transformers import AutoModelForCausalLM, AutoTokenizer

from azr_nemo.megatron.controller import build_engine
from azr_nemo.models import resolve_model
from azr_nemo.selfplay.exchange import Prompt, PromptBatch
from azr_nemo.settings.compose import from_yaml
from azr_nemo.tasks.task import PromptText, Role, TaskType

PROMPTS = ["# deduction\n```python\ndef f(x):\n    return x + 1\n```\n```input\n3\n```\n", "# new\n", "def f(x):"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    finish(start(run_dir, "selfplay.steps=1"))
    return run_dir / "checkpoints" / "step_000001"


def convert(source, out, to):
    command("convert", source, out, "--to", to)
    return out


@pytest.mark.slow
def test_the_exported_checkpoint_gives_the_same_greedy_text_in_transformers(checkpoint, tmp_path):
    exported = convert(checkpoint, tmp_path / "hf", "hf")
    config = from_yaml(checkpoint / "config.yaml")
    start_dir = resolve_model(config.model)
    trained, initial = load_file(exported / "model.safetensors"), load_file(start_dir / "model.safetensors")
    assert any(not torch.equal(trained[name], initial[name]) for name in initial), "nothing was learnt"
    engine = build_engine(config, start_dir)
    engine.load(checkpoint)
    prompts = [Prompt(PromptText(text), Role.SOLVE, TaskType.DEDUCTION, 1, 24, temperature=0.0) for text in PROMPTS]
    ours = [group[0].text for group in engine.generate(PromptBatch(prompts, "solve"), seed=1)]
    ends = engine.text.end_ids
    engine.close()
    tokenizer, model = AutoTokenizer.from_pretrained(exported), AutoModelForCausalLM.from_pretrained(exported)
    for text, said in zip(PROMPTS, ours, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        whole = model.generate(ids, do_sample=False, max_new_tokens=24, eos_token_id=ends, pad_token_id=ends[0])
        assert tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True) == said


@pytest.mark.slow
def test_the_export_converts_back_to_the_same_weights(checkpoint, tmp_path):
    first = convert(checkpoint, tmp_path / "hf", "hf")
    second = convert(convert(first, tmp_path / "megatron", "megatron"), tmp_path / "again", "hf")
    before, after = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
