"""The same tiny model, seed and canned completions through both engines, each in its own environment."""

import json

import pytest
import torch


@pytest.fixture(scope="module")
def both(default, layout):
    """The default engine's rows beside this one's, in the order of this one's."""
    from safetensors.torch import load_file

    numbers = json.loads((default / "default.json").read_text())
    tensors, ours = load_file(default / "default.safetensors"), layout("single")
    joined = [[*p, *r] for p, r in zip(numbers["rows"]["prompts"], numbers["rows"]["responses"], strict=True)]
    order = sorted(range(len(joined)), key=lambda row: joined[row])
    return numbers, {name: tensor[order] for name, tensor in tensors.items()}, [joined[row] for row in order], ours


def test_both_engines_train_on_the_same_tokens(both):
    _, _, rows, ours = both
    assert [[token for token in row if token >= 0] for row in ours["tokens"].tolist()] == rows


def test_advantages_differ_by_at_most_1e_6(both, record):
    _, tensors, _, ours = both
    difference = float((tensors["advantages"].double() - ours["advantages"]).abs().max())
    record("advantages", difference, 1e-6)
    assert float(ours["advantages"].abs().max()) > 0.1


def test_log_probabilities_differ_by_at_most_1e_5(both, record):
    _, tensors, _, ours = both
    record("log-probabilities", float((tensors["logprobs"].double() - ours["logprobs"]).abs().max()), 1e-5)


def test_the_loss_differs_by_at_most_1e_5(both, record):
    numbers, _, _, ours = both
    record("PPO loss", abs(numbers["metrics"]["pg_loss"] - ours["metrics"]["pg_loss"]), 1e-5)
    record("PPO loss with entropy", abs(numbers["metrics"]["loss"] - ours["metrics"]["loss"]), 1e-5)
    assert abs(ours["metrics"]["pg_loss"]) > 1e-3


def test_weights_after_one_gradient_step_differ_by_at_most_1e_4(default, layout, weights, record):
    from safetensors.torch import load_file

    before, theirs = load_file(default / "model" / "model.safetensors"), load_file(default / "default_weights.safetensors")
    ours = weights(layout("single")["checkpoint"])
    assert ours.keys() == theirs.keys()
    moved = max(float((theirs[key] - before[key]).abs().max()) for key in theirs)
    record(f"weights after one SGD step (which moves them by up to {moved:.3f})", _largest(ours, theirs), 1e-4)
    assert moved > 1e-3


def _largest(one, two):
    return max(float((one[key] - two[key]).abs().max()) for key in one)


@pytest.fixture(scope="module")
def record(request):
    """record(what, difference, bound) keeps a measured difference for the table at the end, and fails above the bound."""
    table = []

    def keep(what, difference, bound):
        table.append((what, difference, bound))
        assert difference <= bound, (what, difference)

    yield keep
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\nlargest difference between engine=megatron and engine=aligner")
        for what, difference, bound in table:
            print(f"  {what}: {difference:.1e} (bound {bound:.0e})")


def test_trr_plus_plus_in_tokens_is_the_algorithms_own(forks, tmp_path):
    from functools import partial

    from forking import Job

    job = Job(partial(_advantages, tmp_path), tmp_path, "advantages", 2)
    assert job.wait() == [0, 0], job.output()


def _advantages(folder):
    """Two data-parallel ranks of a batch of twelve rows, one of which only fills it up."""
    import torch.distributed as dist
    from megatron.core import parallel_state

    from azr_nemo.algorithms.trr_plus_plus import trr_plus_plus
    from azr_nemo.aligner.trainer import global_trr_plus_plus

    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel()
    generator = torch.Generator().manual_seed(3)
    rewards = torch.randn(12, generator=generator)
    mask = (torch.rand(12, 9, generator=generator) < 0.6).float()
    mask[11], groups = 0.0, torch.tensor([0, 1, 2, 3, 4, 5] * 2)
    groups[11] = -1
    own = slice(dist.get_rank() * 6, dist.get_rank() * 6 + 6)
    for weighting in ("token", "sequence"):
        found = global_trr_plus_plus(rewards[own], mask[own], groups[own], weighting)
        expected = trr_plus_plus(rewards[:11], mask[:11], groups[:11], weighting)
        assert torch.allclose(found, torch.cat([expected, torch.zeros(1, 9)])[own], atol=1e-6), weighting
        assert found.abs().max() > 0.1
