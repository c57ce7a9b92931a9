"""The engine `megatron`: rank 0 is called by the training loop and announces each call; the other ranks serve until it closes.

Every rank holds its part of the trainer and a whole rollout engine, refitted from the weight stream.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import azr_nemo.rollout as rollouts
from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.architecture import check_layout
from azr_nemo.megatron.checkpoint import load_checkpoint, take_snapshot
from azr_nemo.megatron.commands import Command, announce, join_ids, receive, split_ids
from azr_nemo.megatron.core_versions import require_known
from azr_nemo.megatron.finite_weights import LARGEST_GROWTH, require_growth
from azr_nemo.megatron.generation import ExpectedLengths, deal, decode_requests, encode_requests, request_seed, sample_everywhere
from azr_nemo.megatron.huggingface import read_config
from azr_nemo.megatron.platform import bound_kernel_caches, choose_platform, keep_freed_memory, return_freed_memory, set_threads
from azr_nemo.megatron.sampling_ranks import NoRollout, RemoteSamplers
from azr_nemo.megatron.saving import Saving, Writer
from azr_nemo.megatron.weight_stream import export_weights
from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest, check_version
from azr_nemo.rollout.tokenizer import Text
from azr_nemo.selfplay.exchange import Completion, Example, Prompt, PromptBatch, TrainingBatch
from azr_nemo.settings.schema import RunConfig


def build_engine(config: RunConfig, model_dir: Path, note: Callable[[str], None] = lambda text: None) -> "MegatronEngine | None":
    """The engine on rank 0. On every other rank it serves rank 0's commands and returns None once rank 0 has closed the engine.

    model_dir: a Hugging Face directory (config.json, safetensors, tokenizer). note: hears of a rollout server's start.

    Raises UserError for settings that do not fit the model.
    """
    worker = Worker(config, model_dir, note)
    if distributed.rank():
        worker.serve()
        return None
    return MegatronEngine(config, model_dir, worker)


class Worker:
    """One rank's trainer and rollout engine, and what it does for each command. All ranks run the same command at the same time."""

    def __init__(self, config: RunConfig, model_dir: Path, note: Callable[[str], None] = lambda text: None) -> None:
        """note: hears how a rollout engine that starts a server gets on."""
        self.hf_config, self.model_dir = read_config(model_dir), model_dir
        engine = config.engine
        require_known()
        trainers = distributed.world_size() - (0 if dist.is_initialized() else config.sampler_ranks)
        check_layout(self.hf_config, engine.tensor_parallel, engine.pipeline_parallel, trainers)
        if engine.sequence_parallel and engine.tensor_parallel == 1:
            raise UserError(
                "engine.sequence_parallel=true cuts what tensor parallelism leaves whole: set engine.tensor_parallel above 1 too"
            )
        platform = choose_platform(config.platform)
        set_threads(engine.threads)
        if platform.device.type == "cpu":
            keep_freed_memory()
            bound_kernel_caches()
        self.text = Text(model_dir, self.hf_config)
        distributed.start(platform, engine.tensor_parallel, engine.pipeline_parallel, config.runtime.watchdog_s, config.sampler_ranks)
        self.actor = Actor(config, self.hf_config, platform, model_dir)
        self.samplers: RemoteSamplers | None = None  # on rank 0, where other ranks sample
        self.rollout = self._make_rollout(config, platform.device, note)
        self.writer = Writer()
        self.refit()

    def _make_rollout(self, config: RunConfig, device: torch.device, note: Callable[[str], None]) -> RolloutEngine:
        if link := distributed.link():
            self.samplers = RemoteSamplers(link, config.rollout.tensor_parallel)
            return self.samplers
        if config.sampler_ranks:
            return NoRollout()
        log = Path(config.run_dir) / "vllm" / f"rank{distributed.rank()}.log"
        return rollouts.make_rollout(
            config.rollout, self.hf_config, self.actor.dtype, self.text.end_ids, device, self.text.decode, log, note
        )

    def refit(self) -> float:
        """Hands the trainer's weights to this rank's rollout engine; the seconds that took."""
        started = time.perf_counter()
        self.rollout.refit(export_weights(self.actor.model, self.hf_config), self.actor.updates)
        return time.perf_counter() - started

    def run(self, command: Command) -> Any:
        """Runs a command that rank 0 announced. Its result matters on rank 0 only."""
        with distributed.phase(command.name):
            return self._run(command)

    def _run(self, command: Command) -> Any:
        match command.name:
            case "generate":
                return sample_everywhere(self.rollout, *decode_requests(command.tensors))
            case "update":
                self.rollout.sleep()
                metrics = self.actor.update(_unpack_rows(command.tensors))
                growth = self.actor.growth()
                return_freed_memory()  # activations, before the sampler's weights take their place
                refit = growth <= LARGEST_GROWTH and command.settings["refit"]
                return {**metrics, "growth": growth, "refit_s": self.refit() if refit else 0.0}
            case "supervise":
                self.rollout.sleep()
                prompts, prompt_lengths, responses, response_lengths = command.tensors
                rows = zip(split_ids(prompts, prompt_lengths), split_ids(responses, response_lengths), strict=True)
                metrics = self.actor.supervise([Example(*row) for row in rows], command.settings["lr"])
                return {**metrics, "growth": self.actor.growth()}
            case "refit":
                return self.refit()
            case "weights":
                for _ in export_weights(self.actor.model, self.hf_config):
                    pass
                return None
            case "save":
                asynchronous = command.settings["asynchronous"]
                snapshot = take_snapshot(self.actor, self.model_dir, copy=asynchronous)
                return self.writer.start(snapshot, Path(command.settings["directory"]), asynchronous)
            case "load":
                load_checkpoint(self.actor, Path(command.settings["directory"]))
                return self.refit()
        raise ValueError(f"no such command: {command.name}")

    def serve(self) -> int:
        """Runs rank 0's commands until `close`, and returns the exit code that comes with it.

        Raises UserError when one fails, having left word for the other ranks; it names this rank, or the one whose loss broke the command off.
        """
        name = "waiting for a command"
        try:
            while (command := receive()).name != "close":
                name = command.name
                self.run(command)
                name = "waiting for a command"
            return int(command.settings["exit_code"])
        except Exception as error:
            if other := distributed.failed(error, name):
                raise other from error
            sentence = f"rank {dist.get_rank()} failed in the phase `{name}`: {error}"
            distributed.report_failure(sentence)
            raise UserError(sentence) from error
        finally:
            self.rollout.close()
            self.writer.wait()
            distributed.stop()


class MegatronEngine:
    """The self-play engine on rank 0 (azr_nemo.selfplay.exchange.Engine). Its methods raise UserError when another rank failed."""

    def __init__(self, config: RunConfig, model_dir: Path, worker: Worker | None = None) -> None:
        self.config = config
        self.worker = worker or Worker(config, model_dir)
        self.text = self.worker.text
        self._lengths = ExpectedLengths()
        self._broken = ""  # why the latest command broke off, so that the other ranks may still be in it

    @property
    def tokenizer(self) -> Any:
        return self.text.tokenizer

    def encode(self, text: str) -> list[int]:
        return self.text.encode(text)

    def encode_response(self, text: str) -> list[int]:
        """Token ids of an ideal response, the end token included."""
        return self.text.encode_response(text)

    def generate(self, batch: PromptBatch, seed: int) -> list[list[Completion]]:
        """Samples with the weights of the last refit. Raises ValueError for a prompt longer than rollout.max_prompt_tokens."""
        longest = self.config.rollout.max_prompt_tokens
        requests = []
        for index, prompt in enumerate(batch.prompts):
            ids = tuple(self.text.encode(prompt.text.full))
            if len(ids) > longest:
                raise ValueError(f"prompt {index} has {len(ids)} tokens, more than rollout.max_prompt_tokens={longest}")
            requests.append(self._request(prompt, ids, request_seed(seed, index)))
        samplers = self.worker.samplers
        asked_for = samplers.version if samplers else self.worker.actor.updates
        seen: dict[tuple[int, int], Completion] = {}
        one_at_a_time = threading.Lock()

        def arrived(index: int, k: int, sample: Sample) -> None:
            newest = samplers.version if samplers else asked_for  # a refit may come between
            check_version(sample, range(asked_for, newest + 1), index, k)
            # Many ranks' samples come at once: only what the step does with one has to wait for the one before.
            completion = self._completion(requests[index], sample)
            with one_at_a_time:
                seen[index, k] = completion
                if batch.on_completion is not None:
                    batch.on_completion(index, k, completion)

        kinds = [(prompt.role, prompt.type) for prompt in batch.prompts]
        expected = [self._lengths.of(kind, request.max_new_tokens) for kind, request in zip(kinds, requests, strict=True)]
        if samplers:
            with self._leading("generate"):
                results = samplers.draw(requests, expected, arrived)
        else:
            pieces = deal(requests, expected, dist.get_world_size(), self.config.rollout.tensor_parallel)
            command = Command("generate", tensors=encode_requests(requests, pieces))
            results = self._lead(command, lambda: sample_everywhere(self.worker.rollout, requests, pieces, arrived))
        assert results is not None
        for kind in set(kinds):
            groups = [group for group, its in zip(results, kinds, strict=True) if its == kind]
            self._lengths.learn(kind, [len(sample.token_ids) for group in groups for sample in group])
        return [
            [seen.get((index, k)) or self._completion(requests[index], sample) for k, sample in enumerate(group)]
            for index, group in enumerate(results)
        ]

    def _request(self, prompt: Prompt, ids: tuple[int, ...], seed: int) -> SampleRequest:
        rollout = self.config.rollout
        return SampleRequest(
            ids, prompt.samples, prompt.max_new_tokens, prompt.temperature, seed, stop=prompt.text.stop,
            top_p=rollout.top_p, top_k=rollout.top_k, min_p=rollout.min_p,
        )  # fmt: skip

    def _completion(self, request: SampleRequest, sample: Sample) -> Completion:
        text = self.text.decode(sample.token_ids)
        return Completion(text, request.prompt_ids, sample.token_ids, sample.logprobs, sample.finished, sample.weight_version, sample.newer)

    def update(self, batch: TrainingBatch, refit: bool = True) -> dict[str, float]:
        """Learns from all rows in `optim.mini_batches` optimizer steps, then refits where asked to. Metrics: loss, pg_loss, entropy, grad_norm,
        clip_fraction, rollout_kl, rollout_kl_k3, lr, tokens, update_s, refit_s, and is_weight_mean and is_capped where importance sampling is
        measured (all but the losses per response token where they are means). With one optimizer step log-probabilities cost no seconds of their
        own: they are those of its forward pass; with several, update_s has the forward pass before them too. Raises Diverged when the weights
        are not finite after it, or ten times as large; nothing was refitted then."""
        return _sound(self._lead(Command("update", {"refit": refit}, _pack_rows(batch))), "optim.lr")

    def supervise(self, examples: list[Example], lr: float | None = None) -> dict[str, float]:
        """One cross-entropy step without a refit, at `lr` or else at the configured learning rate. Metrics: loss, grad_norm, lr, tokens, update_s.
        Raises Diverged as update does."""
        prompts, responses = [example.prompt_ids for example in examples], [example.response_ids for example in examples]
        return _sound(self._lead(Command("supervise", {"lr": lr}, (*join_ids(prompts), *join_ids(responses)))), "warmup.lr")

    def refit(self) -> None:
        self._lead(Command("refit"))

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The weight stream. A tensor may share memory with the model: copy what must outlive the next one."""
        with self._leading("weights"):
            announce(Command("weights"))
            stream = export_weights(self.worker.actor.model, self.worker.hf_config)
            with distributed.phase("weights"):
                try:
                    for item in stream:  # noqa: UP028 - `yield from` would close the stream together with this reader
                        yield item
                finally:
                    # The other ranks take part to the end, even when the reader stops early.
                    for _ in stream:
                        pass

    def save(self, directory: Path) -> None:
        """Writes directory/weights and directory/model. Raises UserError when it cannot."""
        self.start_saving(directory, asynchronous=False).wait(self.config.runtime.watchdog_s)

    def start_saving(self, directory: Path, asynchronous: bool = True) -> Saving:
        """Has all ranks copy their parts of a checkpoint and write them aside, or write them at once."""
        return self._lead(Command("save", {"directory": str(directory.absolute()), "asynchronous": asynchronous}))

    def load(self, directory: Path) -> None:
        """Takes back what save wrote, and refits. Raises UserError naming a damaged directory."""
        self._lead(Command("load", {"directory": str(directory.absolute())}))

    def close(self, exit_code: int = 0) -> None:
        """Ends the other ranks, with this exit code, and leaves the job. The engine must not be used afterwards.

        After a command that broke off the others may be waiting for this rank in the middle of it: then the watchdog ends them."""
        if not self.worker.samplers:
            self.worker.rollout.close()
        if not dist.is_initialized():
            return
        if self.worker.samplers and not self._broken:
            self.worker.samplers.close(exit_code)
        if self._broken:
            distributed.report_failure(self._broken)
        else:
            announce(Command("close", {"exit_code": exit_code}))
        distributed.stop()

    def _lead(self, command: Command, run: Callable[[], Any] | None = None) -> Any:
        with self._leading(command.name):
            announce(command)
            if run is None:
                return self.worker.run(command)
            with distributed.phase(command.name):
                return run()

    @contextlib.contextmanager
    def _leading(self, name: str) -> Iterator[None]:
        """Around a command: an error of a collective becomes the sentence about the rank that is to blame."""
        try:
            yield
        except GeneratorExit:
            raise  # a reader of the weight stream that stopped early; the stream itself was read to its end
        except BaseException as error:
            self._broken = f"rank 0 failed in the phase `{name}`: {error or type(error).__name__}"
            # An interrupt, too, may be how a launcher ends the rest of a job of which it lost a rank.
            if other := distributed.failed(error, name):
                self._broken = str(other)
                raise other from error
            if isinstance(error, UserError) and dist.get_world_size() > 1:
                raise UserError(self._broken) from error
            raise
        else:
            self._broken = ""


def _sound(metrics: dict[str, float], setting: str) -> dict[str, float]:
    """The metrics of an update that left sound weights on every rank. Raised here, on rank 0 alone, so that the others are let go in good order."""
    require_growth(metrics.pop("growth"), setting, metrics["lr"])
    return metrics


def _pack_rows(batch: TrainingBatch) -> tuple[Tensor, ...]:
    numbers = (batch.rollout_logprobs.float(), batch.mask.float(), batch.advantages.float())
    return (*join_ids(batch.prompt_ids), *join_ids(batch.response_ids), *numbers, batch.versions)


def _unpack_rows(tensors: tuple[Tensor, ...]) -> TrainingBatch:
    prompts, prompt_lengths, responses, response_lengths, rollout, mask, advantages, versions = tensors
    rows = len(prompt_lengths)
    return TrainingBatch(
        split_ids(prompts, prompt_lengths), split_ids(responses, response_lengths), rollout, mask, advantages,
        # Rewards and groups have done their work in the advantages.
        torch.zeros(rows), torch.zeros(rows, dtype=torch.long), versions,
    )  # fmt: skip
