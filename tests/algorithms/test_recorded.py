"""Numbers that verl v0.7.0's own functions gave (core_algos.py at f9c855f7, in float64), recorded in verl_recorded.json: ours are the same to 1e-5.

Its REINFORCE++, called once for each group, is Absolute Zero's TRR++. Corrections are rollout_corr_helper.py's at b178a3cd (0.8.0.dev); its bands are of
the rollout engine's over the trainer's probability, the recorded ones of the trainer's over the rollout engine's.
"""

import json
from pathlib import Path

import pytest
import torch

from azr_nemo.algorithms.aggregation import token_weights
from azr_nemo.algorithms.estimators import ESTIMATORS, Rewarded
from azr_nemo.algorithms.importance_rejection import kept_within
from azr_nemo.algorithms.importance_sampling import importance_weights
from azr_nemo.algorithms.losses import LOSSES, Bounds, Moved
from azr_nemo.algorithms.sequence_importance import sequence_importance_weights

RECORDED = json.loads((Path(__file__).parent / "verl_recorded.json").read_text())
EXACTLY = {"rtol": 0, "atol": 1e-5}


def mask_of(lengths):
    return (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).double()


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce_plus_plus", "trr_plus_plus"])
@pytest.mark.parametrize("case", RECORDED["advantages"], ids=lambda case: f"{len(case['ids'])} rows")
def test_advantages_are_verls(case, name):
    mask, ids = mask_of(case["lengths"]), torch.tensor(case["ids"])
    rows = Rewarded(torch.tensor(case["rewards"], dtype=torch.float64), mask, ids, ids, torch.zeros(len(ids), dtype=torch.bool))
    found, _ = ESTIMATORS[name].compare(rows, "token", 0.95, {})
    expected = torch.tensor(case[name], dtype=torch.float64)
    assert expected.abs().min() > 1e-3, "a case must tell something"
    torch.testing.assert_close(found, expected[:, None] * mask, **EXACTLY)


@pytest.mark.parametrize("which", sorted(RECORDED["losses"][0]["losses"]))
@pytest.mark.parametrize("case", RECORDED["losses"], ids=lambda case: f"clip {case['clip'][0]}")
def test_losses_gradients_and_clip_fractions_are_verls(case, which):
    name, aggregation = which.split("/")
    expected = case["losses"][which]
    mask, (low, high) = mask_of(case["lengths"]), case["clip"]
    rows, times = mask.nonzero().unbind(1)

    def flat(values):
        return torch.tensor([values[row][time] for row, time in zip(rows.tolist(), times.tolist(), strict=True)], dtype=torch.float64)

    logprobs = flat(case["new"]).requires_grad_()
    advantages = torch.tensor(case["advantages"], dtype=torch.float64)[rows]
    # verl's PPO always has the dual clip
    bounds = Bounds(low, high, dual=3.0 if name == "ppo" else 0.0)
    losses, stats = LOSSES[name](Moved(logprobs, flat(case["old"]), advantages, rows), bounds)
    loss = (losses * token_weights(mask, aggregation)[rows, times]).sum() / mask.sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected["loss"], abs=1e-5)
    torch.testing.assert_close(logprobs.grad, flat(expected["gradient"]), **EXACTLY)
    assert float(stats["clipped"].mean()) == pytest.approx(expected["clip_fraction"], abs=1e-5)


def end_to_end(rows):
    return torch.tensor([value for row in rows for value in row], dtype=torch.float64)


def responses_of(case):
    return torch.arange(len(case["lengths"])).repeat_interleave(torch.tensor(case["lengths"]))


@pytest.mark.parametrize("which", sorted(RECORDED["corrections"][0]["weights"]))
@pytest.mark.parametrize("case", RECORDED["corrections"], ids=lambda case: f"{sum(case['lengths'])} tokens")
def test_truncated_importance_weights_are_verls(case, which):
    level, cap = which.split("/")
    old, rollout = end_to_end(case["old"]), end_to_end(case["rollout"])
    if level == "token":
        found, _ = importance_weights(old, rollout, float(cap))
    else:
        found, _ = sequence_importance_weights(old, rollout, responses_of(case), float(cap))
    torch.testing.assert_close(found, end_to_end(case["weights"][which]), **EXACTLY)


@pytest.mark.parametrize("which", sorted(RECORDED["corrections"][0]["kept"]))
@pytest.mark.parametrize("case", RECORDED["corrections"], ids=lambda case: f"{sum(case['lengths'])} tokens")
def test_what_is_kept_within_a_band_is_verls(case, which):
    level, low, high = which.split("/")
    found = kept_within(end_to_end(case["old"]), end_to_end(case["rollout"]), responses_of(case), level, float(low), float(high))
    assert found.tolist() == end_to_end(case["kept"][which]).tolist()
