"""Rollouts by vLLM, which clusters use: a server for each replica, in its own environment, that takes new weights while it runs.

A replica is `rollout.tensor_parallel` neighbouring ranks of a node. The first of them leads: it starts the server on the replica's GPUs, or on
this machine's CPU, and asks it. What is called was read in vLLM 0.32 and runs here on a CPU; the CUDA ways of the weights never ran on hardware.
"""

import copy
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PretrainedConfig

from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest, check_request
from azr_nemo.rollout.expected import Expected
from azr_nemo.rollout.replica import gpus, replica
from azr_nemo.rollout.stops import Decode, check, cut, first_stop
from azr_nemo.rollout.vllm.client import Client, Job, ServerLost
from azr_nemo.rollout.vllm.cuda import CudaHandles, Nccl
from azr_nemo.rollout.vllm.server_process import Note, Server, interpreter
from azr_nemo.rollout.vllm.weights import SharedMemory, Transfer
from azr_nemo.settings.schema import RolloutConfig

RESTARTS = 1  # of a server that dies alone; after that the run ends
SECRET = "AZR_NEMO_VLLM_SECRET"  # environment variable with the secret of `rollout.endpoints`
STREAMED = 8  # tokens that the server sends together where a stop string is looked for


class VllmRollout(RolloutEngine):
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
        log: Path | None = None,
        note: Note = lambda text: None,
    ):
        """Starts the replica's server with random weights, or connects to its endpoint. Raises UserError when that cannot be.

        log: the file that the server writes; note: hears how the start goes.
        """
        self._config, self._eos_ids, self._text = config, eos_ids, decode
        self._expected = Expected(hf_config)
        self._longest = config.max_prompt_tokens + max(config.max_propose_tokens, config.max_solve_tokens)
        self._device, self._on_gpu = device, device.type == "cuda"
        self._group, self._leads = replica(config.tensor_parallel)
        self._transfer = _transfer(config, device, self._group)
        self._client: Client | None = None
        self._server: Server | None = None
        self._asked_for: int | None = None  # the version of the weights that samples must come from; None: none were handed over
        self._asleep, self._restarts, self._note = False, 0, note
        self._changing = threading.RLock()  # held while weights or server change: with update_in_flight a thread samples meanwhile
        if not self._leads:
            self._transfer.connect(None)
            return
        if config.endpoints:
            number = (dist.get_rank() if dist.is_initialized() else 0) // config.tensor_parallel
            secret = os.environ.get(SECRET)
            self._connect(config.endpoints[number].rstrip("/"), {"Authorization": f"Bearer {secret}"} if secret else {}, lambda wait_s: "")
        else:
            self._server = self._make_server(hf_config, dtype, log)
            self._start()

    def _make_server(self, hf_config: PretrainedConfig, dtype: torch.dtype, log: Path | None) -> Server:
        config, device = self._config, self._device
        python = interpreter(config.vllm.python)
        self._folder = tempfile.TemporaryDirectory(prefix="azr-nemo-vllm-")  # a model directory without weights: refit brings them
        settings = copy.deepcopy(hf_config)
        settings.dtype = dtype
        settings.save_pretrained(self._folder.name)
        own = _gpu_environment(gpus(device.index, config.tensor_parallel)) if self._on_gpu else _cpu_environment()
        place = device.index or 0 if self._on_gpu else int(os.environ.get("LOCAL_RANK", "0"))
        port = config.vllm.port and config.vllm.port + place
        log = log or Path(self._folder.name) / "vllm.log"
        return Server(python, self._arguments(self._folder.name, dtype), own, log, port, config.vllm.start_s, self._note)

    def _arguments(self, model: str, dtype: torch.dtype) -> list[str]:
        config = self._config
        if self._on_gpu:
            # As for trtllm the fraction is of what is free now; vLLM counts in shares of all memory, its weights among them.
            free, total = torch.cuda.mem_get_info(self._device)
            weights = self._expected.parameters * dtype.itemsize / config.tensor_parallel
            share = (weights + config.memory_fraction * (free - weights)) / total
            memory = ["--gpu-memory-utilization", f"{share:.3f}", "--tensor-parallel-size", str(config.tensor_parallel)]
        else:
            memory = ["--kv-cache-memory-bytes", str(config.vllm.cpu_cache_mb << 20), "--enforce-eager"]
        sleeping = ["--enable-sleep-mode"] if self._on_gpu else []
        backend = ["--weight-transfer-config", f'{{"backend": "{self._transfer.backend}"}}'] if self._transfer.backend else []
        return [
            "--model", model, "--served-model-name", "policy", "--load-format", "dummy", "--skip-tokenizer-init",
            "--dtype", str(dtype).removeprefix("torch."), "--max-model-len", str(self._longest), "--max-num-seqs", str(config.max_batch_rows),
            "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs", "--enable-scale-out",
            # A prompt in parts kills a CPU engine whose requests have seeds (its generators know no offset).
            "--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(16384, self._longest)),
            "--worker-extension-cls", "azr_weights.Pieces", "--middleware", "azr_guard.Guard",
            "--stream-interval", str(STREAMED), "--disable-uvicorn-access-log",
            *memory, *sleeping, *backend,
        ]  # fmt: skip

    def _start(self) -> None:
        assert self._server is not None
        self._server.start()
        self._connect(self._server.url, self._server.headers, self._server.gone)

    def _connect(self, url: str, headers: dict[str, str], gone: Callable[[float], str]) -> None:
        if self._client is not None:
            self._client.close()
        # Twice the rows, so that the server always has the next one at hand.
        in_flight = 2 * self._config.max_batch_rows
        self._client = Client(url, headers, gone, in_flight, self._config.vllm.patience_s, self._config.update_in_flight)
        if self._config.update_in_flight and self._config.endpoints:
            self._client.call("/resume")  # a run that was killed in mid change left it standing
        self._transfer.connect(self._client)

    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        """Wakes the server and hands it the stream's tensors. Collective: all ranks of a replica take part. With `update_in_flight` another thread
        may be sampling."""
        with self._changing:
            if not self._config.update_in_flight:
                self._asked_for = None
            self._refit(self._expected.checked(weights), version)
            self._asleep, self._asked_for = False, version
        if self._group is not None:
            dist.barrier(group=self._group)

    def _refit(self, stream: Iterable[tuple[str, Tensor]], version: int) -> None:
        if self._client is not None:
            if self._server is not None and (reason := self._server.gone()):
                self._restart(reason)
            if self._asleep:
                self._client.call("/wake_up", tags="weights")
        try:
            self._transfer.send(self._client, stream, version)
        except ServerLost as lost:
            self._revive(lost, version)
        if self._client is not None:
            if self._asleep:
                self._client.call("/wake_up", tags="kv_cache")
            self._client.forget_prefixes()

    def sleep(self) -> None:
        """On GPUs gives up weights and cache until the next refit; on a CPU vLLM has nothing to give up."""
        self._asked_for = None
        if self._on_gpu and not self._asleep and not self._config.endpoints:
            if self._client is not None:
                self._client.call("/sleep", level="2")
            self._asleep = True
            if self._group is not None:
                dist.barrier(group=self._group)

    def generate(self, requests: list[SampleRequest], on_sample: Callable[[int, int, Sample], None] | None = None) -> list[list[Sample]]:
        """Samples each request; result[i][k] is sample k of request i. Each sample is a request to the server, which batches them in flight.

        What a server that dies had not answered is drawn again by the one that is started in its place, from the same weights and seeds.
        """
        if self._asked_for is None:
            raise RuntimeError("generate was called before refit")
        if self._client is None:
            raise RuntimeError("generate was called on a rank that does not lead its replica")
        for request in requests:
            check_request(request)
            check(request, self._text)
            if len(request.prompt_ids) + request.max_new_tokens > self._longest:
                raise ValueError(
                    f"a prompt and its response have more than {self._longest} tokens, which is what this server was started for"
                )
        samples: list[list[Any]] = [[None] * request.samples for request in requests]

        def arrived(job: Job, sample: Sample) -> None:
            whole = cut(sample, job.request, self._text)
            if whole.newer and not self._config.update_in_flight:
                drew = ", ".join(str(version) for version in (whole.weight_version, *(later for _, later in whole.newer)))
                raise RuntimeError(f"the weights changed while a sample was drawn: it has tokens of the versions {drew}")
            samples[job.index][job.number] = whole
            if on_sample is not None:
                on_sample(job.index, job.number, whole)

        def ended(job: Job, tokens: Sequence[int], known: int) -> bool:
            return first_stop(tokens, job.request, self._text, known) is not None

        while jobs := [job for job in _jobs(requests) if samples[job.index][job.number] is None]:
            asked = self._client
            try:
                asked.sample(jobs, self._parameters, arrived, ended)
            except (UserError, RuntimeError) as error:
                with self._changing:
                    if self._client is not asked:
                        continue  # a refit has met the loss first, and whatever the old connection says is of a server that is no more
                    if not isinstance(error, ServerLost):
                        raise
                    self._revive(error, self._asked_for)
                    self._client.forget_prefixes()
        return samples

    def _revive(self, lost: ServerLost, version: int) -> None:
        """Another server, with the weights that were handed over last."""
        if not self._transfer.repeats:
            raise UserError(f"{lost}, and the weights with it: the run goes on from its last checkpoint")
        self._restart(lost.reason)
        assert self._client is not None
        self._transfer.repeat(self._client, version)

    def _restart(self, reason: str) -> None:
        if self._server is None or self._restarts >= RESTARTS:
            again = "for good" if self._server is None else "again, after it was started anew"
            raise UserError(f"the vLLM server was lost {again} ({reason}): the run goes on from its last checkpoint")
        self._restarts += 1
        self._note(f"rollout=vllm: the server was lost ({reason}); starting another, once")
        self._server.close()
        self._asleep = False
        self._start()

    def _parameters(self, job: Job) -> dict[str, Any]:
        request = job.request
        return {
            "n": 1,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "min_p": request.min_p,
            "max_tokens": request.max_new_tokens,
            "seed": (request.seed * 1_000_003 + request.first + job.number) % 2**63,
            "ignore_eos": True,  # every end token is a stop token, kept with its log-probability
            "stop_token_ids": [*self._eos_ids, *request.stop_token_ids],
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        }

    def close(self) -> None:
        """Ends the server and gives the shared memory back."""
        if self._client is not None:
            self._client.close()
        if self._server is not None:
            self._server.close()
        self._transfer.close()


def _jobs(requests: list[SampleRequest]) -> Iterator[Job]:
    """Every sample; the longest responses are asked for first, as they would end last."""
    order = sorted(range(len(requests)), key=lambda index: -requests[index].max_new_tokens)
    return (Job(index, number, requests[index]) for index in order for number in range(requests[index].samples))


def _gpu_environment(devices: str) -> dict[str, str]:
    # CUDA handles come over HTTP as pickles, which vLLM opens only when told so: its callers know the secret.
    return {"CUDA_VISIBLE_DEVICES": devices, "VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}


def _cpu_environment() -> dict[str, str]:
    # Threads that spin on cores which the trainer uses too slow both down tenfold: as many as the trainer has, bound nowhere.
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}


def _transfer(config: RolloutConfig, device: torch.device, group: dist.ProcessGroup | None) -> Transfer:
    way = config.vllm.transfer
    if way == "auto":
        way = "shm" if device.type == "cpu" else "nccl" if config.endpoints else "ipc"
    if way != "shm" and device.type == "cpu":
        raise UserError(f"rollout.vllm.transfer={way} is for GPUs, but this rank is on the cpu: use shm, or auto")
    if way == "ipc":
        return CudaHandles(device, group)
    return Nccl(device) if way == "nccl" else SharedMemory()
