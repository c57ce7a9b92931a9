"""The TensorRT-LLM engine against stand-ins that bind every call to the signatures of TensorRT-LLM 1.3: a contract, not a run on hardware.

Where the signatures were read: tensorrt_llm's `_torch/async_llm.py`, `llmapi/llm_args.py`, `llmapi/rlhf_utils.py`, `sampling_params.py`,
`examples/ray_orchestrator/rl_perf_repro.py`, and NeMo-RL's `trtllm_worker_async.py`.
"""

import asyncio
import enum
import inspect
import json
import os
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from run_server import ranks

from azr_nemo.errors import UserError
from azr_nemo.models import tiny
from azr_nemo.rollout import make_rollout, trtllm
from azr_nemo.rollout.engine import SampleRequest
from azr_nemo.rollout.replica import environment, gpus
from azr_nemo.settings.schema import RolloutConfig

END = 1
CUDA = torch.device("cuda", 0)
CONFIG = RolloutConfig(name="trtllm", max_prompt_tokens=16, max_propose_tokens=8, max_solve_tokens=4, max_batch_rows=4, memory_fraction=0.4)
# The arguments of AsyncLLM that are used: fields of TorchLlmArgs, which refuses others.
ARGUMENTS = {
    "model", "load_format", "skip_tokenizer_init", "dtype", "tensor_parallel_size", "max_seq_len", "max_input_len", "max_batch_size",
    "max_num_tokens", "kv_cache_config", "cuda_graph_config", "sleep_config", "placement_groups", "placement_bundle_indices",
    "per_worker_gpu_share", "orchestrator_type", "ray_worker_extension_cls", "backend",
}  # fmt: skip


def signature(**defaults):
    """What a call with these keywords alone must look like; names without a default are required."""
    kinds = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature([inspect.Parameter(n, kinds, default=inspect.Parameter.empty if d is ... else d) for n, d in defaults.items()])


SAMPLING = signature(
    end_id=None, pad_id=None, max_tokens=32, stop=None, stop_token_ids=None, include_stop_str_in_output=False, n=1, top_k=None, top_p=None, min_p=None,
    seed=None, temperature=None, logprobs=None, prompt_logprobs=None, logprobs_simple_format=False, ignore_eos=False, detokenize=True,
)  # fmt: skip


class ExecutorMemoryType(enum.StrEnum):
    SAMPLER = "sampler"
    KV_CACHE = "kv_cache"
    MODEL_ENGINE_MAIN = "model_engine_main"
    MODEL_WEIGHTS_MAIN = "model_weights_main"
    INIT_KV_CACHE = "_no_capture_init_kv_cache"


class Settings:
    """KvCacheConfig and its like: keeps the keywords that it knows."""

    known: inspect.Signature

    def __init__(self, **given):
        self.given = self.known.bind(**given).arguments


class KvCacheConfig(Settings):
    known = signature(free_gpu_memory_fraction=0.9, max_tokens=None, enable_block_reuse=True)


class CudaGraphConfig(Settings):
    known = signature(batch_sizes=None, max_batch_size=0, enable_padding=False)


class SleepConfig(Settings):
    known = signature(restore_modes=None)


class SamplingParams(Settings):
    known = SAMPLING


class AsyncLLM:
    """Keeps the weights that its one worker was handed, and answers with ids that tell request and seed. Asleep, it does nothing."""

    last: "AsyncLLM"
    answer = staticmethod(lambda prompt, params: ([*prompt[:1], END], [-0.5, -0.25], "stop"))

    def __init__(self, *args, **kwargs):
        assert not args
        assert set(kwargs) <= ARGUMENTS, set(kwargs) - ARGUMENTS
        self.arguments, self.seen = kwargs, {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "RANK", *trtllm.SWITCHES)}
        self.config = json.loads((Path(kwargs["model"]) / "config.json").read_text())
        self.weights, self.partial, self.asleep, self.calls = {}, {}, False, []
        self.running = self.most = 0
        AsyncLLM.last = self

    async def setup_async(self):
        self.calls.append("setup")
        return self

    async def release(self, tags: list[str]):
        assert not self.asleep
        assert {ExecutorMemoryType(tag) for tag in tags} == set(ExecutorMemoryType) - {ExecutorMemoryType.INIT_KV_CACHE}
        self.asleep, self.weights = True, {}
        self.calls.append("release")

    async def resume(self, tags: list[str]):
        assert self.asleep
        assert all(isinstance(tag, str) for tag in tags)
        self.asleep = False
        self.calls.append("resume")

    async def update_weights(self, weights: dict[str, list] | None):
        await self.collective_rpc("update_weights", args=(weights,))

    async def collective_rpc(self, method: str, args: tuple = (), kwargs: dict | None = None, unique_reply_rank: int | None = None):
        assert not self.asleep
        if method == "update_weights" and args[0] is not None:
            for uuid, handles in args[0].items():
                for name, (rebuild, arguments) in handles:
                    arguments = list(arguments)
                    arguments[6] = 0  # the worker puts its own device there
                    self.partial.setdefault(uuid, {})[name] = rebuild(*arguments).clone()
        elif method == "update_weights":
            self.weights, self.partial = self.partial, {}
        else:
            assert method == "reset_prefix_cache"
        self.calls.append(method)
        return [None]

    def generate_async(self, inputs, sampling_params=None, lora_request=None, prompt_adapter_request=None, streaming=False):
        assert set(inputs) == {"prompt_token_ids"}
        assert not self.asleep
        assert self.weights
        return self._answer(inputs["prompt_token_ids"], sampling_params.given)

    async def _answer(self, prompt, params):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        ids, logprobs, reason = self.answer(prompt, params)
        completion = types.SimpleNamespace(token_ids=ids, logprobs=logprobs, finish_reason=reason)
        return types.SimpleNamespace(outputs=[completion])


def rebuilt(tensor, *_):
    return tensor


def install(monkeypatch, llm=AsyncLLM):
    """Puts the stand-ins where TensorRT-LLM would be, and a handle that opens without CUDA where torch's would be."""
    names = {
        "tensorrt_llm": {"AsyncLLM": llm, "SamplingParams": SamplingParams},
        "tensorrt_llm._torch": {},
        "tensorrt_llm._torch.utils": {"get_device_uuid": lambda device: f"GPU-{device}"},
        "tensorrt_llm.llmapi": {},
        "tensorrt_llm.llmapi.llm_args": {
            "CudaGraphConfig": CudaGraphConfig, "ExecutorMemoryType": ExecutorMemoryType, "KvCacheConfig": KvCacheConfig,
            "SleepConfig": SleepConfig,
        },
    }  # fmt: skip
    for name, members in names.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(trtllm, "reduce_tensor", lambda tensor: (rebuilt, (tensor, 0, 0, 0, 0, 0, 5, 0)))


@pytest.fixture
def rollout(monkeypatch):
    install(monkeypatch)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.update(RANK="0", CUDA_VISIBLE_DEVICES="4,5")
    return make_rollout(CONFIG, tiny.config(tiny.tokenizer()), torch.bfloat16, [END, 7], CUDA)


def weights(scale: float):
    return [(f"layer.{number}", torch.full((4, 4), float(scale + number))) for number in range(5)]


def test_a_replica_is_started_with_what_the_settings_say(rollout):
    llm = AsyncLLM.last
    assert llm.calls == ["setup"]
    assert llm.arguments["kv_cache_config"].given == {"free_gpu_memory_fraction": 0.4}
    assert (llm.arguments["max_seq_len"], llm.arguments["max_batch_size"], llm.arguments["dtype"]) == (24, 4, "bfloat16")
    assert llm.config["model_type"] == "llama"
    assert llm.seen == {"CUDA_VISIBLE_DEVICES": "4", "RANK": None, **trtllm.SWITCHES}
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["RANK"]) == ("4,5", "0")


def test_refit_generate_and_sleep_go_round(rollout, monkeypatch):
    monkeypatch.setattr(trtllm, "BUCKET_BYTES", 100)  # two tensors a bucket
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
    assert hot["seed"] != other["seed"]
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


def test_a_call_that_never_ends_is_a_sentence(rollout, monkeypatch):
    monkeypatch.setattr(trtllm, "PATIENCE_S", 0.05)
    monkeypatch.setattr(AsyncLLM, "setup_async", lambda self: asyncio.sleep(60))
    with pytest.raises(UserError, match="TensorRT-LLM did not answer within"):
        make_rollout(CONFIG, tiny.config(tiny.tokenizer()), torch.bfloat16, [END], CUDA)


def test_without_tensorrt_llm_or_a_gpu_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    config = tiny.config(tiny.tokenizer())
    monkeypatch.setitem(sys.modules, "tensorrt_llm", None)
    with pytest.raises(UserError, match=r"rollout=trtllm needs TensorRT-LLM 1\.x \(.*\): run in NVIDIA's"):
        make_rollout(CONFIG, config, torch.bfloat16, [END], CUDA)
    install(monkeypatch)
    with pytest.raises(UserError, match="this rank is on the cpu: use rollout=torch"):
        make_rollout(CONFIG, config, torch.bfloat16, [END], torch.device("cpu"))


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
    for ended in ranks(Path(__file__).parent / "replica_job.py", 2, tmp_path):
        assert ended.code == 0, ended.output
