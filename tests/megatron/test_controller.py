import socket
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tiny_models import EchoRollout, run_config, training_batch

import azr_nemo.rollout
from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.megatron.commands import join_ids, split_ids
from azr_nemo.megatron.controller import MegatronEngine, build_engine
from azr_nemo.megatron.generation import deal, decode_requests, encode_requests, request_seed
from azr_nemo.megatron.platform import Platform
from azr_nemo.rollout.engine import Sample, SampleRequest, check_version
from azr_nemo.selfplay.exchange import Completion, Example, Prompt, PromptBatch
from azr_nemo.tasks.task import PromptText, Role, TaskType


@pytest.fixture
def engine(model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[MegatronEngine]:
    monkeypatch.setattr(azr_nemo.rollout, "make_rollout", EchoRollout, raising=False)
    engine = build_engine(run_config(), model_dir())
    assert engine is not None
    yield engine
    engine.close()


def prompt(text: str, samples: int = 2) -> Prompt:
    return Prompt(PromptText(text, "<think>"), Role.SOLVE, TaskType.DEDUCTION, samples, max_new_tokens=5)


def test_each_prompt_gets_its_completions(engine: MegatronEngine) -> None:
    seen: dict[tuple[int, int], Completion] = {}
    batch = PromptBatch([prompt("abc", 3), prompt("b", 1)], "solve", lambda i, k, completion: seen.update({(i, k): completion}))
    results = engine.generate(batch, seed=7)
    assert [len(group) for group in results] == [3, 1]
    for i, group in enumerate(results):
        for k, completion in enumerate(group):
            assert seen[i, k] == completion
            assert completion.prompt_ids == tuple(engine.encode(batch.prompts[i].text.full))
            assert completion.response_ids[:2] == (completion.prompt_ids[0], k)
            assert len(completion.logprobs) == 3
            assert completion.finished == (k % 2 == 0)
            assert completion.text[0] == batch.prompts[i].text.text[0]
    assert engine.generate(batch, seed=7) == results
    assert engine.generate(batch, seed=8) != results


def test_a_prompts_stops_reach_the_rollout_engine(engine: MegatronEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SampleRequest] = []
    generate = engine.worker.rollout.generate
    monkeypatch.setattr(engine.worker.rollout, "generate", lambda requests, *rest: asked.extend(requests) or generate(requests, *rest))
    stopping = replace(prompt("abc"), text=PromptText("abc", stop=("\n", "def f(")))
    engine.generate(PromptBatch([prompt("abc"), stopping], "solve"), seed=7)
    assert [request.stop for request in asked] == [(), ("\n", "def f(")]


def test_special_tokens_are_not_in_the_text(engine: MegatronEngine) -> None:
    assert engine.text.end_ids == [256]
    assert engine.text.decode((*engine.encode("ok"), 256)) == "ok"


def test_a_prompt_that_is_too_long_is_the_callers_error(engine: MegatronEngine) -> None:
    engine.config.rollout.max_prompt_tokens = 4
    with pytest.raises(ValueError, match=r"prompt 0 has 10 tokens, more than rollout\.max_prompt_tokens=4"):
        engine.generate(PromptBatch([prompt("abc")], "solve"), seed=0)


def test_an_update_reaches_the_rollout_engine_and_supervision_waits_for_a_refit(
    engine: MegatronEngine, model_dir: Callable[..., Path]
) -> None:
    rollout = engine.worker.rollout
    assert isinstance(rollout, EchoRollout)
    assert all(torch.equal(rollout.weights[name], tensor) for name, tensor in load_file(model_dir() / "model.safetensors").items())
    metrics = engine.update(training_batch())
    assert {
        "loss",
        "pg_loss",
        "entropy",
        "grad_norm",
        "clip_fraction",
        "rollout_kl",
        "rollout_kl_k3",
        "lr",
        "tokens",
        "update_s",
        "refit_s",
    } == set(metrics)
    assert all(torch.equal(rollout.weights[name], tensor) for name, tensor in engine.weights())
    assert rollout.refits == 2
    assert set(engine.supervise([Example((1, 2), (3, 256))])) == {"loss", "grad_norm", "lr", "tokens", "update_s"}
    assert not all(torch.equal(rollout.weights[name], tensor) for name, tensor in engine.weights())
    engine.refit()
    assert all(torch.equal(rollout.weights[name], tensor) for name, tensor in engine.weights())


def test_loading_refits(engine: MegatronEngine, tmp_path: Path) -> None:
    engine.update(training_batch())
    engine.save(tmp_path)
    expected = {name: tensor.clone() for name, tensor in engine.weights()}
    engine.update(training_batch())
    engine.load(tmp_path)
    assert isinstance(engine.worker.rollout, EchoRollout)
    assert all(torch.equal(engine.worker.rollout.weights[name], tensor) for name, tensor in expected.items())
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"config.json", "tokenizer.json"}


def test_closing_leaves_the_job_and_a_new_engine_can_start(engine: MegatronEngine, model_dir: Callable[..., Path]) -> None:
    engine.close()
    assert not dist.is_initialized()
    again = build_engine(run_config(), model_dir())
    assert again is not None
    assert again.update(training_batch())["tokens"] > 0


def test_a_layout_that_does_not_fit_is_refused_before_anything_is_built(model_dir: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"engine\.tensor_parallel=4 does not divide"):
        build_engine(run_config(tensor_parallel=4), model_dir())
    with pytest.raises(UserError, match="needs a multiple of 2 ranks"):
        build_engine(run_config(tensor_parallel=2), model_dir())


def test_sequence_parallelism_without_tensor_parallelism_is_refused(model_dir: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"set engine\.tensor_parallel above 1 too"):
        build_engine(run_config(sequence_parallel=True), model_dir())


def test_a_rank_that_never_comes_is_reported(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed.stop()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    sentence = rf"the 2 ranks of the job did not all meet at 127\.0\.0\.1:{port} within runtime\.watchdog_s=1 s"
    with pytest.raises(UserError, match=sentence):
        distributed.start(platform, 1, 1, watchdog_s=1)


def test_a_model_without_tokenizer_is_refused(model_dir: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((model_dir() / name).read_bytes())
    with pytest.raises(UserError, match="has no tokenizer that can be read"):
        build_engine(run_config(), tmp_path)


def test_a_sample_of_other_weights_than_were_asked_for_ends_the_batch_and_both_are_named(engine: MegatronEngine) -> None:
    engine.generate(PromptBatch([prompt("abc")], "solve"), seed=7)
    engine.update(training_batch(4))
    ((completion, *_),) = engine.generate(PromptBatch([prompt("abc")], "solve"), seed=7)
    assert completion.weight_version == 1
    engine.worker.rollout.version = 0  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="drawn with the weights of update 0, and those of update 1 were asked for"):
        engine.generate(PromptBatch([prompt("abc")], "solve"), seed=7)


@pytest.mark.parametrize(
    ("drew", "sentence"),
    [
        (((0, 5), (3, 6)), ""),
        (((0, 6),), ""),
        (((0, 4), (3, 5)), r"update 4 and 5, and those of updates 5 to 6 were asked for"),
        (((0, 5), (3, 7)), r"update 5 and 7, and"),
        (((0, 6), (3, 5)), r"update 6 and 5, and"),  # weights never become older
    ],
)
def test_all_tokens_of_a_sample_come_from_weights_that_were_asked_for(drew: tuple[tuple[int, int], ...], sentence: str) -> None:
    sample = Sample((1, 2, 3, 4), (-1.0,) * 4, True, drew[0][1], drew[1:])
    with pytest.raises(UserError, match=sentence) if sentence else nullcontext():
        check_version(sample, range(5, 7), 0, 0)


def test_requests_survive_the_wire() -> None:
    requests = [SampleRequest(tuple(range(n)), n + 1, 10 * n, 0.25 * n, request_seed(3, n)) for n in range(1, 8)]
    requests[2] = replace(requests[2], stop=("\n", "naïve\n"), stop_token_ids=(3, 5))
    requests[3] = replace(requests[3], top_p=0.9, top_k=7, min_p=0.05)
    pieces = deal(requests, [10.0 * n for n in range(1, 8)], 3)
    assert decode_requests(encode_requests(requests, pieces)) == (requests, pieces)
    assert split_ids(*join_ids([(1,), (), (2, 3)])) == [(1,), (), (2, 3)]


def test_seeds_are_stable_and_distinct() -> None:
    assert request_seed(1, 2) == request_seed(1, 2) == 7020988164444819289
    assert len({request_seed(seed, index) for seed in range(30) for index in range(30)}) == 900


@pytest.mark.parametrize("name", ["transformers", "torch"])
def test_the_rollout_engine_samples_from_the_trainers_own_policy(model_dir: Callable[..., Path], name: str) -> None:
    config = run_config()
    config.rollout.name = name
    engine = build_engine(config, model_dir("qwen2-untied"))
    assert engine is not None
    for seed in range(2):
        groups = engine.generate(PromptBatch([prompt("abc", 3), prompt("de", 2)], "solve"), seed=seed)
        rows = [completion for group in groups for completion in group]
        batch = training_batch(len(rows))
        shape = (len(rows), max(len(row.response_ids) for row in rows))
        mask, logprobs = torch.zeros(shape), torch.zeros(shape)
        for index, row in enumerate(rows):
            mask[index, : len(row.response_ids)] = 1
            logprobs[index, : len(row.response_ids)] = torch.tensor(row.logprobs)
        prompts, responses = [row.prompt_ids for row in rows], [row.response_ids for row in rows]
        metrics = engine.update(replace(
            batch, prompt_ids=prompts, response_ids=responses, mask=mask, rollout_logprobs=logprobs, advantages=mask
        ))  # fmt: skip
        assert abs(metrics["rollout_kl"]) < 1e-5
        assert metrics["rollout_kl_k3"] < 1e-8
    engine.close()
