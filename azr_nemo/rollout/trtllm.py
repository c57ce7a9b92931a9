"""Rollouts by TensorRT-LLM 1.3 (`AsyncLLM`, PyTorch backend, Ray orchestrator) on the GPUs that train. Not run on hardware yet.

From 1.3.0rc15 on, whose `AsyncLLM` sleeps and takes weights in buckets, and before 1.4, which has no TRTLLMSampler any more. That sampler gives each
request a generator of its own seed and tempers logits before it takes log-probabilities, as the trainer does; the default one, TorchSampler, has one
generator a replica, which begins at 42, and log-probabilities of temperature 1 (NVIDIA/TensorRT-LLM pull requests 9675, 12514, 17172).

A replica is `rollout.tensor_parallel` neighbouring ranks of a node. The first of them leads: it holds the AsyncLLM, with a Ray of its own that
sees those GPUs alone, so no Ray cluster has to be started. Weights reach the replica's workers as CUDA IPC handles, a bucket at a time: a
handle opens only on the GPU that it was made on, so each rank makes those of its own. While training, the replica sleeps; `refit` wakes it.

What is called here was read in TensorRT-LLM's `AsyncLLM` and `rlhf_utils.WorkerExtension` and in NeMo-RL's use of them;
tests/rollout/trtllm_contract.json holds the signatures and where each was read.
"""

import asyncio
import copy
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.distributed as dist
from packaging.version import Version
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from transformers import PretrainedConfig

from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest, check_request
from azr_nemo.rollout.replica import environment, gpus, replica
from azr_nemo.rollout.stops import Decode, check, cut
from azr_nemo.settings.schema import RolloutConfig

OLDEST, TOO_NEW = Version("1.3.0rc15"), Version("1.4.0.dev0")
BUCKET_BYTES = 2**30  # of weights that are on their way to the workers: copies beside the trainer's own
ALIGNED = 256  # bytes, of each tensor's place in a bucket
OBJECT_STORE_BYTES = 2**29  # of a replica's Ray, through which handles and requests go, never weights
PATIENCE_S = 7200.0  # how long one call of TensorRT-LLM may take
SWITCHES = {
    "TLLM_DISABLE_MPI": "1",  # Ray starts the workers
    "TLLM_RAY_FORCE_LOCAL_CLUSTER": "1",  # a Ray for each replica
    "TRT_LLM_DISABLE_LOAD_WEIGHTS_IN_PARALLEL": "True",  # in parallel, loading races with a refit and takes more memory
}


class TrtllmRollout(RolloutEngine):
    """A RolloutEngine; see `azr_nemo.rollout.engine` for the protocol. Only leading ranks are asked to generate; all of them refit and sleep.

    Samples are seeded, but as the batch that a row is decoded in changes its logits' last bits, they are not the same in every layout.
    """

    def __init__(
        self,
        hf_config: PretrainedConfig,
        dtype: torch.dtype,
        eos_ids: list[int],
        device: torch.device,
        config: RolloutConfig,
        decode: Decode | None = None,
    ):
        """Starts the replica with random weights. Raises UserError when TensorRT-LLM or a GPU is missing."""
        os.environ.update(SWITCHES)
        release = _Release.imported()
        if device.type != "cuda":
            raise UserError(f"rollout=trtllm decodes on GPUs, but this rank is on the {device.type}: use rollout=torch")
        self._sampling_params, self._eos_ids, self._text = release.sampling_params, eos_ids, decode
        self._uuid = release.get_device_uuid(device.index)
        self._tags = [tag.value for tag in release.memory if not tag.value.startswith("_")]
        self._longest = config.max_prompt_tokens + max(config.max_propose_tokens, config.max_solve_tokens)
        self._group, self._leads = replica(config.tensor_parallel)
        self._loop = asyncio.new_event_loop()
        self._fitted = self._asleep = False
        self._version = 0
        self._llm: Any = None
        self._bucket = _Bucket()
        if self._leads:
            self._folder = tempfile.TemporaryDirectory(prefix="azr-nemo-trtllm-")  # a model directory without weights: refit brings them
            settings = copy.deepcopy(hf_config)
            settings.dtype = dtype
            settings.save_pretrained(self._folder.name)
            with environment(gpus(device.index, config.tensor_parallel)):
                self._start(release, dtype, config)

    def _start(self, release: "_Release", dtype: torch.dtype, config: RolloutConfig) -> None:
        """Ray, and in it the AsyncLLM."""

        async def start() -> Any:
            llm = release.async_llm(
                model=self._folder.name,
                load_format="dummy",
                skip_tokenizer_init=True,
                dtype=str(dtype).removeprefix("torch."),
                tensor_parallel_size=config.tensor_parallel,
                sampler_type="TRTLLMSampler",
                max_seq_len=self._longest,
                max_input_len=self._longest,
                max_batch_size=config.max_batch_rows,
                max_num_tokens=max(8192, config.max_prompt_tokens),
                kv_cache_config=release.kv_cache_config(free_gpu_memory_fraction=config.memory_fraction),
                cuda_graph_config=release.cuda_graph_config(max_batch_size=config.max_batch_rows, enable_padding=True),
                # Neither survives a sleep: a refit follows every one.
                sleep_config=release.sleep_config(
                    restore_modes={release.memory.MODEL_WEIGHTS_MAIN: "NONE", release.memory.KV_CACHE: "NONE"}
                ),
            )
            await llm.setup_async()
            return llm

        # Ray takes a machine for its own, and a node has several of these: TensorRT-LLM finds this one and starts none.
        release.ray.init(
            address="local", num_cpus=config.tensor_parallel + 1, num_gpus=config.tensor_parallel, object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False, namespace="trtllm", runtime_env={"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}},
        )  # fmt: skip
        self._end_ray = release.ray.shutdown
        self._llm = self._call(start())

    @torch.no_grad()
    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        """Wakes the replica and hands it the stream's tensors. Collective: all ranks of a replica take part."""
        self._fitted = False
        torch.cuda.empty_cache()  # what training left cached is the replica's
        if self._asleep and self._leads:
            self._call(self._llm.resume(self._tags))
        self._asleep = False
        for name, tensor in weights:
            if not self._bucket.has_room(tensor):
                self._send()
            self._bucket.put(name, tensor.detach())  # a copy: the stream's own may be gone with its next
        self._send()
        self._bucket = _Bucket()  # its memory is the cache's
        if self._leads:
            self._call(self._llm.update_weights(None))  # ends the update; the cache of prefixes is emptied too
        self._wait_for_leader()
        self._fitted, self._version = True, version

    def _send(self) -> None:
        parts: list[Any] = [{self._uuid: [(name, reduce_tensor(tensor)) for name, tensor in self._bucket.tensors]}]
        if self._group is not None:
            mine, parts = parts[0], [None] * self._group.size()
            dist.all_gather_object(parts, mine, group=self._group)
        if self._leads:
            self._call(self._llm.update_weights({uuid: entries for part in parts for uuid, entries in part.items()}))
        self._wait_for_leader()  # until then the tensors must live
        self._bucket.clear()

    def sleep(self) -> None:
        """Gives up the memory of weights and cache. Collective, as `refit` is."""
        self._fitted = False
        if not self._asleep and self._leads:
            self._call(self._release())
        self._wait_for_leader()
        self._asleep = True

    async def _release(self) -> None:
        await self._llm.collective_rpc("reset_prefix_cache")  # its entries would outlive what they point at
        await self._llm.release(self._tags)

    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        """Samples each request; result[i][k] is sample k of request i. All are handed over at once and batched in flight."""
        if not self._fitted:
            raise RuntimeError("generate was called before refit")
        if not self._leads:
            raise RuntimeError("generate was called on a rank that does not lead its replica")
        if any(len(request.prompt_ids) + request.max_new_tokens > self._longest for request in requests):
            raise ValueError(f"a prompt and its response have more than {self._longest} tokens, which is what this replica was started for")
        for request in requests:
            check_request(request)
            check(request, self._text)
        results: list[list[Any]] = [[None] * request.samples for request in requests]

        async def one(index: int, k: int) -> None:
            request = requests[index]
            inputs = {"prompt_token_ids": list(request.prompt_ids)}
            answer = await self._llm.generate_async(inputs=inputs, sampling_params=self._parameters(request, k))
            # Its workers have no tokenizer: what runs on past a stop string is cut off here.
            results[index][k] = cut(_sample(answer.outputs[0], self._version), request, self._text)
            if on_sample is not None:
                on_sample(index, k, results[index][k])

        async def every() -> None:
            await asyncio.gather(*(one(index, k) for index, request in enumerate(requests) for k in range(request.samples)))

        self._call(every())
        return results

    def _parameters(self, request: SampleRequest, k: int) -> Any:
        return self._sampling_params(
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k if request.temperature else 1,  # 0: all
            min_p=request.min_p,
            max_tokens=request.max_new_tokens,
            seed=(request.seed * 1_000_003 + request.first + k) % 2**63,
            end_id=-1,  # every end token is a stop token, kept in the output with its log-probability
            pad_id=self._eos_ids[0] if self._eos_ids else 0,
            stop_token_ids=[*self._eos_ids, *request.stop_token_ids],
            include_stop_str_in_output=True,
            logprobs=1,  # the likeliest token's, and the sampled one's beside it
            detokenize=False,
        )

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, PATIENCE_S))
        except TimeoutError:
            raise UserError(f"TensorRT-LLM did not answer within {PATIENCE_S:.0f} s: look at the output of its workers") from None

    def _wait_for_leader(self) -> None:
        if self._group is not None:
            dist.barrier(group=self._group)

    def close(self) -> None:
        """Ends the replica and its Ray."""
        if self._llm is not None:
            self._llm.shutdown()
            self._end_ray()
            self._llm = None


@dataclass(frozen=True)
class _Release:
    """What is called of an installed TensorRT-LLM."""

    ray: Any
    async_llm: Any
    sampling_params: Any
    get_device_uuid: Callable[[int], str]
    cuda_graph_config: Any
    memory: Any  # kinds of memory that sleep
    kv_cache_config: Any
    sleep_config: Any

    @classmethod
    def imported(cls) -> Self:
        """Raises UserError when there is none, or one that was never read."""
        needed = f"rollout=trtllm needs TensorRT-LLM from {OLDEST} on and before {TOO_NEW.base_version}"
        advice = "run in NVIDIA's TensorRT-LLM release image, or use rollout=torch"
        try:
            import tensorrt_llm

            found = Version(tensorrt_llm.__version__)
            if not OLDEST <= found < TOO_NEW:
                raise UserError(f"{needed}, but {found} is installed: {advice}")
            import ray
            from tensorrt_llm import AsyncLLM, SamplingParams
            from tensorrt_llm._torch.utils import get_device_uuid
            from tensorrt_llm.llmapi.llm_args import CudaGraphConfig, ExecutorMemoryType, KvCacheConfig, SleepConfig
        except ImportError as error:
            raise UserError(f"{needed} ({error}): {advice}") from None
        return cls(ray, AsyncLLM, SamplingParams, get_device_uuid, CudaGraphConfig, ExecutorMemoryType, KvCacheConfig, SleepConfig)


class _Bucket:
    """One buffer that tensors are copied into, one behind the other, so that a refit opens one handle again and again instead of making memory for
    each tensor."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, Tensor]] = []
        self._memory: Tensor | None = None
        self._end = 0

    def has_room(self, tensor: Tensor) -> bool:
        """For it behind what is there; an empty bucket has room for any."""
        return not self.tensors or (self._memory is not None and self._end + tensor.nbytes <= self._memory.nbytes)

    def put(self, name: str, tensor: Tensor) -> None:
        if self._memory is None or self._end + tensor.nbytes > self._memory.nbytes:
            assert not self.tensors
            self._memory = None  # before the larger one is made
            self._memory = torch.empty(max(BUCKET_BYTES, tensor.nbytes), dtype=torch.uint8, device=tensor.device)
        place = self._memory[self._end : self._end + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        self.tensors.append((name, place.copy_(tensor)))
        self._end += -(-tensor.nbytes // ALIGNED) * ALIGNED

    def clear(self) -> None:
        self.tensors, self._end = [], 0


def _sample(completion: Any, version: int) -> Sample:
    """A completion's ids with their log-probabilities, which come as numbers or as {id: object with `logprob`}."""
    ids = tuple(completion.token_ids)
    if completion.finish_reason not in ("stop", "length") or len(completion.logprobs) != len(ids):
        raise RuntimeError(
            f"TensorRT-LLM ended a sample of {len(ids)} tokens by {completion.finish_reason} with {len(completion.logprobs)} log-probabilities"
        )
    values = (entry[token].logprob if isinstance(entry, dict) else entry for token, entry in zip(ids, completion.logprobs, strict=True))
    return Sample(ids, tuple(float(value) for value in values), completion.finish_reason == "stop", version)
