"""What this engine calls of NeMo-Aligner, against the signatures of release 0.7.0 as they were recorded, and the refit before every rollout.

TensorRT-LLM itself is not here: its engine is built on a GPU.
"""

import inspect
import json
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

RECORDED = json.loads((Path(__file__).parent / "nemo_aligner_signatures.json").read_text())


# The module of the reward model's client needs PyTriton, for which there is no use here.
HERE = [name for name in RECORDED if "reward_critic_clients" not in name]


@pytest.mark.parametrize("name", HERE)
def test_nemo_aligner_has_the_recorded_signature(forks, name):
    module, _, path = name.partition(":")
    found = import_module(f"nemo_aligner.{module}")
    for part in path.split("."):
        found = getattr(found, part)
    assert list(inspect.signature(found).parameters) == RECORDED[name]


@pytest.mark.parametrize("name", ["refit", "generate", "free"])
def test_the_recorded_engine_of_the_tests_is_called_as_the_real_one(name):
    from jobs import RecordedTensorRT

    assert list(inspect.signature(getattr(RecordedTensorRT, name)).parameters) == RECORDED[f"utils.trt_llm:GPTGenerateTRTLLM.{name}"]


@pytest.mark.parametrize("name", ["generate_rollouts", "generate_ppo_data", "run_training", "run_validation"])
def test_the_trainer_overrides_what_fit_calls(forks, name):
    from azr_nemo.aligner.trainer import SelfPlayPPOTrainer

    assert list(inspect.signature(getattr(SelfPlayPPOTrainer, name)).parameters) == RECORDED[f"algorithms.ppo:PPOTrainer.{name}"]


def test_the_actor_overrides_what_the_trainer_calls(forks):
    from azr_nemo.aligner.ppo_actor import SelfPlayActor

    for name in ("get_loss_and_metrics", "get_actor_forward_output_and_loss_func", "get_logprob_output_only_func"):
        recorded = RECORDED[f"models.nlp.gpt.megatron_gpt_ppo_actor:MegatronGPTActorModel.{name}"]
        assert list(inspect.signature(getattr(SelfPlayActor, name)).parameters) == recorded


def test_rewards_answer_as_the_remote_client_does():
    from azr_nemo.aligner.rewards import SandboxRewards

    recorded = RECORDED["models.nlp.gpt.reward_critic_clients:RemoteGPTRMCriticClient.infer_rm_critic"]
    assert list(inspect.signature(SandboxRewards.infer_rm_critic).parameters) == recorded


@pytest.fixture(scope="module")
def tensorrt(forks, model, tmp_path_factory):
    from forking import Job
    from jobs import two_steps_with_tensorrt

    folder = tmp_path_factory.mktemp("tensorrt")
    job = Job(partial(two_steps_with_tensorrt, folder, model), folder, "tensorrt")
    assert job.wait() == [0], job.output()
    return json.loads((folder / "tensorrt.json").read_text())


def test_weights_are_handed_over_before_every_rollout_and_the_engine_is_freed_after_it(tensorrt):
    assert [row[:2] for row in tensorrt["rows"]] == [[1, 1], [2, 2]]


def test_what_tensorrt_sampled_is_trained_on(tensorrt):
    assert [row[2:] for row in tensorrt["rows"]] == [[48, 24], [48, 24]]  # two tokens in each of 24 rows


def test_each_batch_of_prompts_says_how_it_is_sampled(tensorrt):
    assert [update["max_new_tokens"] for update in tensorrt["updates"][:2]] == [64, 48]
    assert all(update["temperature"] == 0.7 and update["top_k"] == 0 for update in tensorrt["updates"])
