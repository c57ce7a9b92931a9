"""A server's life, with a stand-in for vLLM behind the project's own files: how it starts, what ends it, and what is said then."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import process_trees
import psutil
import pytest
from stand_in import REQUESTS, dies_while_it_loads, fault, state, tiny_weights

from azr_nemo.errors import UserError
from azr_nemo.rollout.engine import SampleRequest

pytestmark = pytest.mark.slow


def test_it_starts_with_a_log_and_says_so(shared):
    first, *_, last = shared.notes
    assert first.startswith("rollout=vllm: starting a server, process ")
    assert first.endswith("vllm/rank0.log")
    assert Path(first.split()[-1]).is_file()
    assert "ready after" in last
    assert shared._server.url.startswith("http://127.0.0.1:")


def test_only_who_knows_the_secret_is_heard(engine):
    for headers in ({}, {"Authorization": "Bearer guess"}):
        answer = httpx.post(f"{engine._server.url}/collective_rpc", json={"method": "load_pieces"}, headers=headers, trust_env=False)
        assert (answer.status_code, answer.text) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("0.11.2", "has vLLM 0.11.2, and rollout=vllm makes the calls of 0.32 and 0.33: `make vllm`"), ("", "has no vLLM, and")],
)
def test_another_version_is_refused(start, environment, version, sentence):
    with pytest.raises(UserError, match=sentence):
        start(python=str(environment(version)))


def test_a_missing_environment_is_a_sentence(start, tmp_path):
    with pytest.raises(UserError, match=r"rollout\.vllm\.python=.*nowhere is not there: `make vllm` makes"):
        start(python=str(tmp_path / "nowhere"))


def test_an_interpreter_that_cannot_be_run_is_a_sentence(start, tmp_path):
    (tmp_path / "text").write_text("no program")
    with pytest.raises(UserError, match=r"rollout\.vllm\.python=.*text cannot be run"):
        start(python=str(tmp_path / "text"))


def test_a_port_in_use_is_a_sentence(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"rollout\.vllm\.port={port} cannot be had on 127\.0\.0\.1 .*in use.*: give another, or 0"):
            start(port=port)


def test_a_server_that_dies_at_its_start_is_a_sentence_with_its_last_words(start, monkeypatch):
    monkeypatch.setenv("FAKE_DIES", "1")
    with pytest.raises(
        UserError, match=r"the vLLM server did not start: its process \d+ ended with exit code 1 \(OSError: Address already"
    ):
        start()


def test_a_start_has_a_bound(start, monkeypatch):
    monkeypatch.setenv("FAKE_SLOW_START", "1")
    with pytest.raises(UserError, match=r"did not start within rollout\.vllm\.start_s=1 s"):
        start(start_s=1.0)


def test_a_server_killed_in_mid_batch_is_started_once_and_what_it_owed_is_drawn_again(engine):
    fault(engine, delay=0.15)
    engine.refit(tiny_weights(), 3)
    expected = engine.generate(REQUESTS)
    fault(engine, delay=0.15)
    before, heard = state(engine)["weights"], []

    def killed(index, k, sample):
        if not heard:
            os.kill(engine._server._process.pid, signal.SIGKILL)
        heard.append((index, k))

    assert engine.generate(REQUESTS, killed) == expected
    assert sorted(heard) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert any("was killed by SIGKILL" in note and "starting another, once" in note for note in engine.notes)
    assert state(engine)["weights"] == before
    os.kill(engine._server._process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"was lost again, after it was started anew .*the run goes on from its last checkpoint"):
        engine.generate(REQUESTS)


def test_a_server_lost_between_batches_is_started_by_the_next_refit(engine):
    engine.refit(tiny_weights(), 1)
    engine.sleep()
    os.kill(engine._server._process.pid, signal.SIGKILL)
    engine._server._process.wait()
    engine.refit(tiny_weights(), 2)
    assert {sample.weight_version for group in engine.generate(REQUESTS) for sample in group} == {2}


def test_a_server_lost_while_it_takes_weights_is_started_and_takes_them_again(engine, monkeypatch):
    dies_while_it_loads(engine, monkeypatch)
    engine.refit(tiny_weights(), 5)
    assert any("starting another, once" in note for note in engine.notes)
    assert {sample.weight_version for group in engine.generate(REQUESTS) for sample in group} == {5}


def test_a_stopped_server_ends_the_batch_within_its_bound(engine, monkeypatch):
    engine.refit(tiny_weights(), 1)
    monkeypatch.setattr(engine._config.vllm, "patience_s", 1.0)
    engine._connect(engine._server.url, engine._server.headers, engine._server.gone)
    os.kill(engine._server._process.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"stands still for rollout\.vllm\.patience_s=1 s"):
        engine.generate(REQUESTS)
    with pytest.raises(UserError, match=r"did not answer /update_weight_version for rollout\.vllm\.patience_s=1 s"):
        engine.refit(tiny_weights(), 2)
    assert time.monotonic() - began < 20
    engine._server.close()
    assert engine._server.gone().startswith("its process")


RUN = """
import os, sys, signal, torch
from azr_nemo.settings.machine import RolloutConfig, VllmConfig
from azr_nemo.models import tiny
from azr_nemo.rollout import make_rollout
config = RolloutConfig(name="vllm", vllm=VllmConfig(python=sys.argv[1]))
engine = make_rollout(config, tiny.config(tiny.tokenizer()), torch.float32, [1], torch.device("cpu"))
print(engine._server._process.pid, flush=True)
signal.pause()
"""


def test_the_server_and_its_engine_die_with_a_run_that_is_killed(environment):
    run = process_trees.Process([sys.executable, "-c", RUN, environment("0.32.0")], stdout=subprocess.PIPE)
    assert run.stdout is not None
    server = psutil.Process(int(run.stdout.readline()))
    tree = [server, *server.children(recursive=True)]
    assert len(tree) >= 2, "the server has an engine process"
    os.kill(server.pid, signal.SIGSTOP)  # a stopped one too
    run.kill()
    run.communicate()
    _, alive = psutil.wait_procs(tree, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_the_engine_dies_with_a_server_that_is_killed(engine):
    server = psutil.Process(engine._server._process.pid)
    children = server.children(recursive=True)
    assert children
    server.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_weights_go_through_memory_that_leaves_nothing_behind(engine, monkeypatch):
    monkeypatch.setattr("azr_nemo.rollout.vllm.weights.PIECE_BYTES", 1 << 16)
    monkeypatch.setattr("azr_nemo.rollout.vllm.weights.pieces.__defaults__", (1 << 16,))
    here = set(Path("/dev/shm").iterdir())
    for version, value in ((1, 1.0), (2, 0.5)):
        weights = tiny_weights(value)
        engine.refit(iter(weights), version)
        seen = state(engine)
        assert seen["weights"] == {name: float(tensor.sum()) for name, tensor in weights}
        assert seen["version"] == str(version)
        assert len(engine._transfer._pieces) > 3
    # Other tests' processes have files there for moments, a browser's among them.
    until = time.monotonic() + 20
    while (left := set(Path("/dev/shm").iterdir()) - here) and time.monotonic() < until:
        here |= {file for file in left if file.name.startswith(".org.chromium")}
        time.sleep(0.1)
    assert not left
    asked = [call for call in state(engine)["calls"] if call[0] in ("/update_weight_version", "/collective_rpc", "/reset_prefix_cache")]
    assert [call[0] for call in asked[-4:]] == [
        "/update_weight_version",
        "/collective_rpc",
        "/update_weight_version",
        "/reset_prefix_cache",
    ]
    assert asked[-4][2] == {"new_version": "being replaced"}


def test_what_its_processes_shared_goes_with_the_server_however_that_ended(start):
    ended, killed = start(), start()
    shared = {*ended._server._memory, *killed._server._memory}
    assert {file.name[:3] for file in shared} == {"psm", "sem"}, "as the stand-ins' processes have them"
    assert all(file.exists() for file in shared)
    os.killpg(killed._server._process.pid, signal.SIGKILL)
    killed._server._process.wait()
    for engine in (ended, killed):
        engine.close()
    assert not any(file.exists() for file in shared)


def test_memory_that_cannot_be_had_is_a_sentence(engine):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(UserError, match=r"the weights for rollout=vllm do not fit into shared memory \(3 MiB more: .*\): give the run"):
            engine.refit(tiny_weights(), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(RuntimeError, match="before refit"):
        engine.generate(REQUESTS)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_drawn_from_them(engine):
    with pytest.raises(UserError, match=r"the weights lack model\.norm\.weight"):
        engine.refit([(name, tensor) for name, tensor in tiny_weights() if name != "model.norm.weight"], 31)
    assert state(engine)["version"] != "31"
    with pytest.raises(RuntimeError, match="before refit"):
        engine.generate(REQUESTS)


def test_a_server_that_keeps_its_old_version_is_found_out(engine):
    engine._server.close()
    engine._start()  # with random weights, called `default`
    fault(engine, deaf=True)
    engine.refit(tiny_weights(), 4)
    with pytest.raises(UserError, match=r"drawn with the weights called \w+, which no update of this run handed over"):
        engine.generate(REQUESTS)


def test_diverged_weights_are_reported_as_such(engine):
    fault(engine, nan=True)
    engine.refit(tiny_weights(), 4)
    with pytest.raises(UserError, match="the weights have diverged"):
        engine.generate(REQUESTS)


def test_a_stop_string_ends_a_stream_and_the_server_hears_of_it(engine):
    engine.refit(tiny_weights(), 7)
    ((whole,),) = engine.generate([SampleRequest((5,), 1, 60, 1.0, 99)])
    stop = engine._text(whole.token_ids[4:6])
    ((cut,),) = engine.generate([SampleRequest((5,), 1, 60, 1.0, 99, stop=(stop,))])
    assert (cut.token_ids, cut.finished, cut.weight_version) == (whole.token_ids[:6], True, 7)
    assert any(call[0] == "/inference/v1/abort_requests" for call in state(engine)["calls"] if isinstance(call, list))


def test_sampling_is_asked_for_as_the_protocol_wants_it(engine):
    engine.refit(tiny_weights(), 1)
    engine.generate([SampleRequest((5, 6), 2, 4, 0.7, 11, stop_token_ids=(9,), top_p=0.9, top_k=5, min_p=0.1)])
    engine.generate([SampleRequest((5, 6), 1, 4, 0.7, 11, first=1)])
    asked = [call["sampling_params"] for call in state(engine)["calls"] if isinstance(call, dict)]
    asked[:2] = sorted(asked[:2], key=lambda sampling: sampling["seed"])  # two streams at once arrive in any order
    assert asked[0] == {
        "n": 1, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "max_tokens": 4, "seed": 11 * 1_000_003, "ignore_eos": True,
        "stop_token_ids": [1, 9], "logprobs": 0, "detokenize": False,
    }  # fmt: skip
    assert asked[1]["seed"] == asked[2]["seed"]  # the same sample, whoever draws it


def test_a_request_beyond_the_servers_length_is_refused(engine):
    engine.refit(tiny_weights(), 1)
    with pytest.raises(ValueError, match="more than 96 tokens"):
        engine.generate([SampleRequest((5,) * 90, 1, 7, 1.0, 1)])
