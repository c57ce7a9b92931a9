"""Tensor, pipeline and data parallelism under gloo give what one process gives, through NeMo-Aligner's own trainer and actor."""

import pytest
import torch

LAYOUTS = ("tp2", "pp2", "dp2")


@pytest.mark.parametrize("name", LAYOUTS)
def test_log_probabilities_agree_within_1e_5(layout, name):
    one, two = layout("single"), layout(name)
    assert torch.equal(one["tokens"], two["tokens"])
    assert float((one["logprobs"] - two["logprobs"]).abs().max()) < 1e-5


@pytest.mark.parametrize("name", LAYOUTS)
def test_advantages_are_the_same_however_rows_are_spread(layout, name):
    assert float((layout("single")["advantages"] - layout(name)["advantages"]).abs().max()) < 1e-6


@pytest.mark.parametrize("name", LAYOUTS)
def test_updated_weights_agree_within_1e_5_and_have_moved(layout, weights, default, name):
    from safetensors.torch import load_file

    before = load_file(default / "model" / "model.safetensors")
    one, two = (weights(layout(layout_name)["checkpoint"]) for layout_name in ("single", name))
    assert one.keys() == two.keys() == before.keys()
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 1e-5
    assert max(float((one[key] - before[key]).abs().max()) for key in one) > 1e-3


@pytest.mark.parametrize("name", LAYOUTS)
def test_metrics_of_the_update_agree(layout, name):
    one, two = layout("single")["metrics"], layout(name)["metrics"]
    assert one.keys() == two.keys()
    assert all(two[key] == pytest.approx(one[key], abs=1e-5) for key in one)


@pytest.mark.parametrize("name", LAYOUTS)
def test_nemos_own_generation_continues_prompts_alike(layout, name):
    assert layout("single")["greedy"] == layout(name)["greedy"]
    assert all(len(ids) == 8 for ids in layout(name)["greedy"])
