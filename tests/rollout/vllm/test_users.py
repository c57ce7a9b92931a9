"""Who asks a vLLM server beside a run: the doctor and evaluations. The stand-in answers."""

from dataclasses import replace

import pytest
import torch

from azr_nemo.doctor.findings import State
from azr_nemo.doctor.rollouts import rollouts
from azr_nemo.evaluation.eval_settings import EvalSettings
from azr_nemo.evaluation.sampler import Model
from azr_nemo.rollout.engine import SampleRequest
from azr_nemo.settings.machine import RolloutConfig, VllmConfig


@pytest.mark.slow
def test_the_doctor_starts_a_server_and_draws_a_sample(environment):
    (found,) = rollouts(RolloutConfig(name="vllm", vllm=VllmConfig(python=str(environment("0.33.1")))))
    assert found.state == State.OK
    assert found.found.startswith("started, took weights and drew 8 tokens of a tiny model in ")


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(environment):
    config = RolloutConfig(name="vllm", vllm=VllmConfig(python=str(environment("0.9.1"))))
    (found,) = rollouts(config)
    assert (found.state, found.mend[:11]) == (State.ERROR, "`make vllm`")
    assert "has vLLM 0.9.1" in found.found
    (found,) = rollouts(replace(config, endpoints=["http://127.0.0.1:9"]))
    assert (found.what, found.state) == ("vllm http://127.0.0.1:9", State.ERROR)
    assert not list(rollouts(RolloutConfig()))


def test_an_evaluation_samples_with_a_server_and_ends_it(environment, tmp_path):
    settings = EvalSettings(checkpoint="scratch:tiny", rollout="vllm", vllm=VllmConfig(python=str(environment("0.32.0"))), platform="cpu")
    model = Model(settings, tmp_path / "vllm.log")
    answers = {}
    model.generate([SampleRequest((5, 6), 2, 4, 0.0, 1)], lambda index, k, sample: answers.update({(index, k): sample}))
    assert sorted(answers) == [(0, 0), (0, 1)]
    assert (tmp_path / "vllm.log").is_file()
    assert model.dtype in (torch.float32, torch.bfloat16)
    model.close()
    assert model.rollout._server.gone()
