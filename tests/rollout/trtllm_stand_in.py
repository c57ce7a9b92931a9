"""Stand-ins for what is called of TensorRT-LLM and ray, made of trtllm_contract.json or held to it: names, parameters and defaults that were read in
TensorRT-LLM's source, with the commit of each file."""

import asyncio
import enum
import inspect
import json
import os
import sys
import types
from pathlib import Path

from azr_nemo.rollout import trtllm

END = 1
CONTRACT = json.loads((Path(__file__).parent / "trtllm_contract.json").read_text())


def signature(*names):
    """What a call must look like, by keywords alone; a default of "required" is none."""
    return inspect.Signature(
        [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=inspect.Parameter.empty if d == "required" else d)
            for name in names
            for n, d in CONTRACT[name]["parameters"].items()
        ]
    )


def recorded(call):
    """A function's parameters as the contract writes them."""
    parameters = [each for each in inspect.signature(call).parameters.values() if each.name != "self"]
    lists = {each.name: list(each.default) if isinstance(each.default, tuple) else each.default for each in parameters}
    return {name: "required" if default is inspect.Parameter.empty else default for name, default in lists.items()}


ExecutorMemoryType = enum.StrEnum("ExecutorMemoryType", CONTRACT["ExecutorMemoryType"]["members"])


class Settings:
    """KvCacheConfig and its like: keeps the keywords that it knows."""

    known: inspect.Signature

    def __init__(self, **given):
        self.given = self.known.bind(**given).arguments


class KvCacheConfig(Settings):
    known = signature("KvCacheConfig")


class CudaGraphConfig(Settings):
    known = signature("CudaGraphConfig")


class SleepConfig(Settings):
    known = signature("SleepConfig")


class SamplingParams(Settings):
    known = signature("SamplingParams")


class AsyncLLM:
    """Keeps the weights that its one worker was handed, and answers with ids that tell request and seed. Asleep, it does nothing."""

    last: "AsyncLLM"
    answer = staticmethod(lambda prompt, params: ([*prompt[:1], END], [-0.5, -0.25], "stop"))

    def __init__(self, *args, **kwargs):
        assert not args
        signature("AsyncLLM", "TorchLlmArgs").bind(**kwargs)  # its own, and fields of its arguments, which refuse others
        assert not set(kwargs) & set(CONTRACT["AsyncLLM"]["decides"])  # it would put its own in their place
        assert Ray.running is not None  # one of its own would take all of the machine
        self.arguments, self.seen = kwargs, {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", *LEAKING, *trtllm.SWITCHES)}
        self.config = json.loads((Path(kwargs["model"]) / "config.json").read_text())
        self.weights, self.partial, self.asleep, self.calls = {}, {}, False, []
        self.running = self.most = 0
        AsyncLLM.last = self

    async def setup_async(self):
        self.calls.append("setup")
        return self

    def shutdown(self):
        self.calls.append("shutdown")

    async def release(self, tags: list[str]):
        assert not self.asleep
        assert {ExecutorMemoryType(tag) for tag in tags} == {kind for kind in ExecutorMemoryType if not kind.startswith("_")}
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
        assert len(args) <= len(CONTRACT["WorkerExtension"]["methods"][method])
        if method == "update_weights" and args[0] is not None:
            for uuid, handles in args[0].items():
                for name, (rebuild, arguments) in handles:
                    arguments = list(arguments)
                    arguments[CONTRACT["WorkerExtension"]["device_argument"]] = 0  # the worker puts its own device there
                    self.partial.setdefault(uuid, {})[name] = rebuild(*arguments).clone()
        elif method == "update_weights":
            self.weights, self.partial = self.partial, {}
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


LEAKING = ("RANK", "OMP_NUM_THREADS", "CUDA_DEVICE_MAX_CONNECTIONS", "NCCL_DEBUG", "TORCHELASTIC_RUN_ID")


class Ray:
    """ray: what it was started with, while it runs."""

    running = None

    @staticmethod
    def init(**given):
        assert Ray.running is None
        Ray.running = signature("ray.init").bind(**given).arguments

    @staticmethod
    def shutdown():
        Ray.running = None


def install(monkeypatch, llm=AsyncLLM, version="1.3.0rc22"):
    """Puts the stand-ins where TensorRT-LLM would be, and a handle that opens without CUDA where torch's would be."""
    monkeypatch.setattr(Ray, "running", None)
    names = {
        "ray": {"init": Ray.init, "shutdown": Ray.shutdown},
        "tensorrt_llm": {"AsyncLLM": llm, "SamplingParams": SamplingParams, "__version__": version},
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
