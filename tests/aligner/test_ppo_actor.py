"""The actor's loss, on the real model in one process."""

import json
from functools import partial

import pytest
import torch


@pytest.fixture(scope="module")
def facts(forks, model, tmp_path_factory):
    from forking import Job
    from jobs import facts_of_the_actor

    folder = tmp_path_factory.mktemp("actor")
    job = Job(partial(facts_of_the_actor, folder, model), folder, "facts")
    assert job.wait() == [0], job.output()
    return json.loads((folder / "facts.json").read_text())


def test_entropy_over_a_split_vocabulary_is_the_dense_one(facts):
    assert facts["entropy"] < 1e-5
    assert facts["entropy_gradient"] < 1e-4


def test_the_loss_is_a_mean_over_all_tokens_whatever_the_micro_batches(facts):
    two, six = torch.tensor(facts["gradient_2"]), torch.tensor(facts["gradient_6"])
    assert float((two - six).abs().max()) < 1e-5
    assert float(two.norm()) > 0.1


def test_responses_that_were_cut_off_learn(facts):
    assert facts["ended"] == [False, False]
    assert facts["gradient_of_cut"] > 0.1


def test_gradients_are_measured_and_clipped_as_torch_does(facts):
    assert facts["norm"] == pytest.approx(facts["torch_norm"], rel=1e-5)
    assert facts["clipped_norm"] == pytest.approx(1e-3, rel=1e-3)
