"""Ranks that only sample (`placement=split`): what they do, and the rollout engine that stands for all of them on the trainer's rank 0."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import azr_nemo.rollout as rollouts
from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.megatron.commands import Command, announce, receive
from azr_nemo.megatron.generation import OnSample, deal, decode_requests, encode_requests, sample_everywhere
from azr_nemo.megatron.huggingface import read_config
from azr_nemo.megatron.link import Link
from azr_nemo.megatron.platform import bound_kernel_caches, choose_dtype, choose_platform, keep_freed_memory, set_threads
from azr_nemo.rollout.engine import RolloutEngine, Sample, SampleRequest
from azr_nemo.rollout.tokenizer import Text
from azr_nemo.settings.schema import RunConfig


class RemoteSamplers(RolloutEngine):
    """All sampler ranks, as the trainer's rank 0 sees them. generate may run in a thread of its own while the trainer learns and, where they take
    weights between tokens, hands them over."""

    def __init__(self, link: Link, replica: int) -> None:
        self.link, self.replica = link, replica
        self.version = 0  # of the newest weights that a sample may come from
        self._speaking = threading.Lock()  # a command and what belongs to it are not mixed with another one

    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        self.version = version
        with self._speaking:
            announce(Command("refit", {"version": version}), self.link.broadcast)
            for name, tensor in weights:
                told = {"name": name, "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
                announce(Command("tensor", told), self.link.broadcast)
                if tensor.numel():
                    self.link.hand_over(tensor.detach().to(self.link.device).contiguous().view(-1).view(torch.uint8))
            announce(Command("refitted"), self.link.broadcast)

    def generate(self, requests: list[SampleRequest], on_sample: OnSample | None = None) -> list[list[Sample]]:
        return self.draw(requests, [request.max_new_tokens for request in requests], on_sample)

    def draw(self, requests: list[SampleRequest], expected: Sequence[float], on_sample: OnSample | None) -> list[list[Sample]]:
        """Samples all requests, each sampler its share. expected: tokens of a sample of each request."""
        pieces = [replace(piece, rank=piece.rank + 1) for piece in deal(requests, expected, self.link.ranks - 1, self.replica)]
        with self._speaking:
            announce(Command("generate", tensors=encode_requests(requests, pieces)), self.link.broadcast)
        results = sample_everywhere(None, requests, pieces, on_sample, self.link)
        assert results is not None
        return results

    def close(self, exit_code: int = 0) -> None:
        announce(Command("close", {"exit_code": exit_code}), self.link.broadcast)


class NoRollout(RolloutEngine):
    """On the trainer's other ranks: they take part in the weight stream."""

    def refit(self, weights: Iterable[tuple[str, Tensor]], version: int = 0) -> None:
        for _ in weights:
            pass

    def generate(self, requests: list[SampleRequest], on_sample: OnSample | None = None) -> list[list[Sample]]:
        raise AssertionError("this rank only trains")


def serve_samples(config: RunConfig, model_dir: Path, met: Callable[[], None] = lambda: None) -> int:
    """A sampler rank: takes weights, samples, until rank 0 closes; returns the exit code that comes with it. met: called once all ranks have met.

    Raises UserError when something fails, having left word for the other ranks.
    """
    hf_config, platform = read_config(model_dir), choose_platform(config.platform)
    set_threads(config.engine.threads)
    if platform.device.type == "cpu":
        keep_freed_memory()
        bound_kernel_caches()
    text = Text(model_dir, hf_config)
    distributed.start(platform, 1, 1, config.runtime.watchdog_s, config.sampler_ranks)
    met()
    link = distributed.link()
    assert link is not None
    log = Path(config.run_dir) / "vllm" / f"sampler{link.rank}.log"
    dtype = choose_dtype(config.model.dtype, platform)
    rollout = rollouts.make_rollout(config.rollout, hf_config, dtype, text.end_ids, platform.device, text.decode, log)
    beside = Beside(rollout, link) if config.rollout.update_in_flight else None
    name = "waiting for a command"
    try:
        while (command := _next(link, beside)).name != "close":
            name = command.name
            if command.name == "generate" and beside:
                beside.draw(command)
            else:
                with distributed.phase(name):
                    if name == "refit":
                        rollout.refit(received_weights(link), command.settings["version"])
                    else:
                        sample_everywhere(rollout, *decode_requests(command.tensors), channel=link)
            name = "waiting for a command"
        return int(command.settings["exit_code"])
    except Exception as error:
        raise _told(error, name, link) from error
    finally:
        rollout.close()
        distributed.stop()


class Beside:
    """Draws in a thread of its own, so that this rank hears of new weights between tokens (`rollout.update_in_flight`)."""

    def __init__(self, rollout: RolloutEngine, link: Link) -> None:
        self.rollout, self.link = rollout, link
        self._thread = threading.Thread()

    @property
    def drawing(self) -> bool:
        return self._thread.is_alive()

    def draw(self, command: Command) -> None:
        """Begins; what was drawn before has reached rank 0, or it would not ask for more."""
        if self._thread.ident:
            self._thread.join()
        self._thread = threading.Thread(target=self._run, args=(command,), name="drawing", daemon=True)
        self._thread.start()

    def _run(self, command: Command) -> None:
        try:
            with distributed.phase(command.name):
                sample_everywhere(self.rollout, *decode_requests(command.tensors), channel=self.link)
            distributed.wait_for_others()  # as the rank's own thread does
        except Exception as error:
            _told(error, command.name, self.link)  # the others end, and the watchdog this rank, whose own thread waits for a command


def _told(error: Exception, name: str, link: Link) -> UserError:
    """What this rank ends with; the others have word of it."""
    if other := distributed.failed(error, name):
        return other
    sentence = f"sampler rank {link.rank} failed in the phase `{name}`: {error}"
    distributed.report_failure(sentence)
    return UserError(sentence)


def _next(link: Link, beside: Beside | None) -> Command:
    if beside and beside.drawing:  # this rank is at work
        return receive(link.broadcast)
    with distributed.waiting():
        return receive(link.broadcast)


def received_weights(link: Link) -> Iterator[tuple[str, Tensor]]:
    """The weight stream, as rank 0 sends it."""
    while (command := receive(link.broadcast)).name == "tensor":
        dtype = getattr(torch, command.settings["dtype"].removeprefix("torch."))
        tensor = torch.empty(command.settings["shape"], dtype=dtype, device=link.device)
        if tensor.numel():
            link.hand_over(tensor.view(-1).view(torch.uint8))
        distributed.advance()
        yield command.settings["name"], tensor
