"""The TensorRT-LLM engine against stand-ins that bind every call to signatures read in TensorRT-LLM's source: a contract, not a run on hardware."""

import asyncio
import inspect
import os
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from packaging.version import Version
from run_server import ranks
from torch.multiprocessing.reductions import rebuild_cuda_tensor
from trtllm_stand_in import CONTRACT, END, LEAKING, AsyncLLM, ExecutorMemoryType, Ray, install, recorded

from azr_nemo.errors import UserError
from azr_nemo.models import tiny
from azr_nemo.rollout import make_rollout, trtllm
from azr_nemo.rollout.engine import SampleRequest
from azr_nemo.rollout.replica import environment, gpus
from azr_nemo.settings.schema import RolloutConfig

CUDA = torch.device("cuda", 0)
CONFIG = RolloutConfig(name="trtllm", max_prompt_tokens=16, max_propose_tokens=8, max_solve_tokens=4, max_batch_rows=4, memory_fraction=0.4)


@pytest.fixture
def rollout(monkeypatch):
    install(monkeypatch)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.update(dict.fromkeys(LEAKING, "0"), CUDA_VISIBLE_DEVICES="4,5")
    return make_rollout(CONFIG, tiny.config(tiny.tokenizer()), torch.bfloat16, [END, 7], CUDA)


def weights(scale: float):
    return [(f"layer.{number}", torch.full((4, 4), float(scale + number))) for number in range(5)]


def test_the_contract_is_of_the_release_that_the_image_has_and_that_is_let_in():
    release = CONTRACT["release"]["version"]
    assert trtllm.OLDEST <= Version(release) < trtllm.TOO_NEW
    dockerfile = (Path(__file__).parents[2] / "Dockerfile").read_text()
    assert f"ARG TENSORRT_LLM_IMAGE=nvcr.io/nvidia/tensorrt-llm/release:{release}\n" in dockerfile
    named = [entry for name, entry in CONTRACT.items() if name != "ray.init"]
    assert all(re.fullmatch("[0-9a-f]{40}", entry["commit"]) for entry in named)


def test_the_stand_in_takes_what_the_release_takes():
    methods = {**CONTRACT["AsyncLLM"]["methods"], "generate_async": CONTRACT["LLM.generate_async"]["parameters"]}
    assert {name: recorded(getattr(AsyncLLM, name)) for name in methods} == methods


def test_a_handles_device_stands_where_the_worker_puts_its_own():
    names = list(inspect.signature(rebuild_cuda_tensor).parameters)
    assert names[CONTRACT["WorkerExtension"]["device_argument"]] == "storage_device"


def test_a_replica_is_started_with_what_the_settings_say(rollout):
    llm = AsyncLLM.last
    assert llm.calls == ["setup"]
    assert llm.arguments["kv_cache_config"].given == {"free_gpu_memory_fraction": 0.4}
    assert (llm.arguments["max_seq_len"], llm.arguments["max_batch_size"], llm.arguments["dtype"]) == (24, 4, "bfloat16")
    assert llm.config["model_type"] == "llama"
    assert llm.arguments["sampler_type"] == "TRTLLMSampler"  # the one whose seeds and temperatures are a request's own
    assert llm.arguments["sampler_type"] in CONTRACT["SamplerType"]["members"]
    assert llm.arguments["load_format"].upper() in CONTRACT["LoadFormat"]["members"]
    modes = llm.arguments["sleep_config"].given["restore_modes"]
    assert {ExecutorMemoryType(kind) for kind in modes} == {ExecutorMemoryType.MODEL_WEIGHTS_MAIN, ExecutorMemoryType.KV_CACHE}
    assert set(modes.values()) <= set(CONTRACT["SleepConfig"]["modes"])
    assert llm.seen == {"CUDA_VISIBLE_DEVICES": "4", **dict.fromkeys(LEAKING), **trtllm.SWITCHES}
    assert (os.environ["CUDA_VISIBLE_DEVICES"], *(os.environ[name] for name in LEAKING)) == ("4,5", *"00000")


def test_a_replicas_ray_takes_no_more_than_it_needs_and_ends_with_it(rollout):
    assert (Ray.running["num_gpus"], Ray.running["num_cpus"], Ray.running["object_store_memory"]) == (1, 2, trtllm.OBJECT_STORE_BYTES)
    rollout.close()
    rollout.close()
    assert Ray.running is None
    assert AsyncLLM.last.calls[-1:] == ["shutdown"]


def test_refit_generate_and_sleep_go_round(rollout, monkeypatch):
    monkeypatch.setattr(trtllm, "BUCKET_BYTES", 500)  # two tensors a bucket, each in a place of its own
    llm = AsyncLLM.last
    requests = [SampleRequest((5, 6), 2, 4, 1.0, 11), SampleRequest((9,), 1, 8, 1.0, 12, first=3)]
    ended: list = []
    for turn in range(2):
        ended.clear()
        rollout.refit(iter(weights(turn)))
        assert {name: float(tensor[0, 0]) for name, tensor in llm.weights["GPU-0"].items()} == {f"layer.{n}": turn + n for n in range(5)}
        results = rollout.generate(requests, lambda i, k, sample: ended.append((i, k, sample)))
        assert [[sample.token_ids for sample in group] for group in results] == [[(5, END)] * 2, [(9, END)]]
        assert all(sample.finished and sample.logprobs == (-0.5, -0.25) for group in results for sample in group)
        assert sorted((i, k) for i, k, _ in ended) == [(0, 0), (0, 1), (1, 0)]
        rollout.sleep()
        rollout.sleep()  # once more changes nothing
        assert llm.asleep
        with pytest.raises(RuntimeError, match="before refit"):
            rollout.generate(requests)
    assert llm.most == 3  # all at once: TensorRT-LLM batches them in flight
    round_ = ["update_weights"] * 4 + ["reset_prefix_cache", "release"]  # three buckets and the end
    assert llm.calls == ["setup", *round_, "resume", *round_]


def test_tensors_are_copied_before_the_streams_next_one(rollout):
    def stream():
        tensor = torch.zeros(2)
        for number in range(3):
            yield f"w{number}", tensor.fill_(number)

    rollout.refit(stream())
    assert [float(tensor[0]) for tensor in AsyncLLM.last.weights["GPU-0"].values()] == [0, 1, 2]


def test_a_refit_uses_one_buffer_again_and_again_however_large_a_tensor_is(rollout, monkeypatch):
    monkeypatch.setattr(trtllm, "BUCKET_BYTES", 600)
    places, make = [], trtllm.reduce_tensor
    monkeypatch.setattr(trtllm, "reduce_tensor", lambda tensor: places.append(tensor.untyped_storage().data_ptr()) or make(tensor))
    stream = [("a", torch.ones(4)), ("b", torch.ones(1000)), ("c", torch.full((3,), 7, dtype=torch.bfloat16)), ("d", torch.ones(999))]
    rollout.refit(iter(stream))
    assert all(torch.equal(AsyncLLM.last.weights["GPU-0"][name], tensor) for name, tensor in stream)
    assert len(set(places[1:])) == 1


def test_sampling_is_asked_for_as_the_protocol_wants_it(rollout, monkeypatch):
    asked = []
    monkeypatch.setattr(AsyncLLM, "answer", staticmethod(lambda prompt, params: asked.append(params) or ([3, 4], [-1.0, -2.0], "length")))
    rollout.refit(weights(0))
    results = rollout.generate([SampleRequest((5,), 2, 2, 1.0, 11), SampleRequest((5,), 1, 2, 0.0, 11)])
    assert not results[0][0].finished
    hot, other, cold = asked
    assert (hot["temperature"], hot["top_k"], hot["max_tokens"], hot["stop_token_ids"]) == (1.0, 0, 2, [END, 7])
    assert (cold["temperature"], cold["top_k"]) == (0.0, 1)
    assert hot["include_stop_str_in_output"]
    assert hot["logprobs"] == 1
    assert hot["seed"] != other["seed"]
    for asking in asked:
        assert all(asking[name] >= bound for name, bound in CONTRACT["SamplingParams"]["least"].items())
        assert all(asking[name] <= bound for name, bound in CONTRACT["SamplingParams"]["most"].items())
    later = SampleRequest((5,), 1, 2, 1.0, 11, first=1)
    rollout.generate([later])
    assert asked[-1]["seed"] == other["seed"]  # the same sample, whoever draws it


def test_what_runs_on_past_a_stop_is_cut_off(rollout, monkeypatch):
    answers = {"stop": ([3, 4, 5, 6], [-1.0, -2.0, -3.0, -4.0], "length")}
    monkeypatch.setattr(AsyncLLM, "answer", staticmethod(lambda prompt, params: answers["stop"]))
    rollout.refit(weights(0))
    request = SampleRequest((5,), 1, 4, 1.0, 11, stop=("45",))
    with pytest.raises(ValueError, match="without `decode`"):
        rollout.generate([request])
    rollout._text = lambda ids: "".join(map(str, ids))
    heard = []
    (sample,), (whole,) = rollout.generate([request, replace(request, stop=("54",))], lambda *what: heard.append(what))
    assert (sample.token_ids, sample.logprobs, sample.finished) == ((3, 4, 5), (-1.0, -2.0, -3.0), True)
    assert (len(whole.token_ids), whole.finished) == (4, False)
    assert {index: heard_sample for index, _, heard_sample in heard} == {0: sample, 1: whole}


def test_log_probabilities_may_come_by_token(rollout, monkeypatch):
    entry = types.SimpleNamespace
    by_token = [{8: entry(logprob=-0.1), 3: entry(logprob=-2.0)}, {END: entry(logprob=-0.7)}]
    monkeypatch.setattr(AsyncLLM, "answer", staticmethod(lambda prompt, params: ([3, END], by_token, "stop")))
    rollout.refit(weights(0))
    assert rollout.generate([SampleRequest((5,), 1, 2, 1.0, 1)])[0][0].logprobs == (-2.0, -0.7)


@pytest.mark.parametrize("answer", [([3], [-1.0], "cancelled"), ([3, 4], [-1.0], "stop")])
def test_an_answer_that_is_not_whole_is_no_sample(rollout, monkeypatch, answer):
    monkeypatch.setattr(AsyncLLM, "answer", staticmethod(lambda prompt, params: answer))
    rollout.refit(weights(0))
    with pytest.raises(RuntimeError, match="TensorRT-LLM ended a sample"):
        rollout.generate([SampleRequest((5,), 1, 2, 1.0, 1)])


def test_a_request_beyond_the_replicas_length_is_refused(rollout):
    rollout.refit(weights(0))
    with pytest.raises(ValueError, match="more than 24 tokens"):
        rollout.generate([SampleRequest((5,) * 17, 1, 8, 1.0, 1)])


def test_a_call_that_never_ends_is_a_sentence(monkeypatch):
    install(monkeypatch)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(trtllm, "PATIENCE_S", 0.05)
    monkeypatch.setattr(AsyncLLM, "setup_async", lambda self: asyncio.sleep(60))
    with pytest.raises(UserError, match="TensorRT-LLM did not answer within"):
        make_rollout(CONFIG, tiny.config(tiny.tokenizer()), torch.bfloat16, [END], CUDA)


def test_without_tensorrt_llm_or_a_gpu_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    config = tiny.config(tiny.tokenizer())
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    with pytest.raises(
        UserError, match=r"rollout=trtllm needs TensorRT-LLM from 1\.3\.0rc15 on and before 1\.4\.0 \(.*\): run in NVIDIA's"
    ):
        make_rollout(CONFIG, config, torch.bfloat16, [END], CUDA)
    install(monkeypatch)
    with pytest.raises(UserError, match="this rank is on the cpu: use rollout=torch"):
        make_rollout(CONFIG, config, torch.bfloat16, [END], torch.device("cpu"))


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc14", "1.4.0rc1", "1.4.0"])
def test_a_release_without_what_is_called_is_refused(monkeypatch, version):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    install(monkeypatch, version=version)
    with pytest.raises(UserError, match=rf"from 1\.3\.0rc15 on and before 1\.4\.0, but {version} is installed: run in NVIDIA's"):
        make_rollout(CONFIG, tiny.config(tiny.tokenizer()), torch.bfloat16, [END], CUDA)


def test_a_replicas_gpus_are_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,6,7")
    assert gpus(2, 2) == "6,7"
    with pytest.raises(UserError, match="let it see all GPUs of its node"):
        gpus(3, 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus(4, 2) == "4,5"
    with environment("4,5"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def two_ranks(rank: int, folder: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        install(monkeypatch)
        monkeypatch.setattr(trtllm, "BUCKET_BYTES", 2**12)  # what a stand-in's handle is pickled with: a real one is a few bytes
        store = dist.FileStore(f"{folder}/store", 2)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
        config = RolloutConfig(name="trtllm", max_prompt_tokens=16, max_propose_tokens=8, max_solve_tokens=8, tensor_parallel=2)
        engine = make_rollout(config, tiny.config(tiny.tokenizer()), torch.float32, [END], torch.device("cuda", rank))
        engine.refit(weights(rank))
        engine.sleep()
        engine.refit(weights(10 + rank))
        if rank == 0:
            llm = AsyncLLM.last
            assert (llm.arguments["tensor_parallel_size"], llm.seen["CUDA_VISIBLE_DEVICES"]) == (2, "0,1")
            # Each worker has what the rank of its own GPU handed over.
            assert {uuid: float(held["layer.0"][0, 0]) for uuid, held in llm.weights.items()} == {"GPU-0": 10.0, "GPU-1": 11.0}
            assert engine.generate([SampleRequest((5,), 1, 2, 1.0, 1)])[0][0].token_ids == (5, END)
        else:
            assert not hasattr(AsyncLLM, "last")
            with pytest.raises(RuntimeError, match="does not lead"):
                engine.generate([SampleRequest((5,), 1, 2, 1.0, 1)])
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one_replica(tmp_path):
    ended = ranks(Path(__file__).parent / "replica_job.py", 2, tmp_path)
    assert [rank.code for rank in ended] == [0, 0], "\n".join(rank.output for rank in ended)  # a rank fails with its peer
