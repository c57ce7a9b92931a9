"""Whole runs that sample with a real vLLM server, and what they do when it, its engine or they themselves are killed or stopped: `make test-vllm`."""

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from run_server import ranks
from tiny_run import SETTINGS, finish, refused, start

from azr_nemo.models.shape import model_shape
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.rollout import make_rollout
from azr_nemo.rollout.vllm.server_process import CHECKOUT
from azr_nemo.rollout.vllm.vllm_rollout import SECRET, VllmRollout

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("AZR_VLLM_TESTS" not in os.environ, reason="a real vLLM server: `make test-vllm`"),
    pytest.mark.timeout(1500),
]
VLLM = ["rollout=vllm", "rollout.vllm.cpu_cache_mb=128", "rollout.vllm.start_s=900", "eval.items=0", "engine.threads=1"]


@pytest.fixture(scope="module", autouse=True)
def environment():
    assert (CHECKOUT / ".venv-vllm" / "bin" / "python").is_file(), "AZR_VLLM_TESTS=1 asks for vLLM's environment: `make vllm`"


def servers(run) -> list[psutil.Process]:
    """The vLLM processes of a run, the server itself first."""
    try:
        tree = psutil.Process(run.pid).children(recursive=True)
        first = next(process for process in tree if "serve.py" in " ".join(process.cmdline()))
        return [first, *first.children(recursive=True)]
    except (psutil.NoSuchProcess, StopIteration):
        return []


def serving() -> set[psutil.Process]:
    """The vLLM servers of this machine."""
    return {process for process in psutil.process_iter(["cmdline"]) if "inside/serve.py" in " ".join(process.info["cmdline"] or [])}


def reached(run, what, within_s: float = 900.0):
    """What `what()` gives once it is something; fails when the run ends before."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert run.poll() is None, run.output()
        assert time.monotonic() < deadline, run.output()
        time.sleep(0.05)
    return found


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=30)[1]


def metrics(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def kl(run_dir: Path) -> list[float]:
    """Of each step, nats a token."""
    return [line["train/rollout_kl"] for line in metrics(run_dir) if line["step"]]


def test_a_run_goes_on_when_its_engine_is_killed_in_mid_batch_and_leaves_no_process(tmp_path):
    run = start(tmp_path, *VLLM, "selfplay.steps=2", "rollout.max_propose_tokens=112")
    reached(run, lambda: (tmp_path / "checkpoints" / "step_000001").is_dir())
    first = servers(run)
    engine = [process for process in first[1:] if "EngineCore" in process.name() or "EngineCore" in " ".join(process.cmdline())]
    assert engine, [process.cmdline() for process in first]
    engine[0].kill()
    output = finish(run)
    assert gone(first)
    assert "starting another, once" in output
    assert [line["step"] for line in metrics(tmp_path)][-1] == 2
    assert len(kl(tmp_path)) == 2
    assert all(abs(value) < 1e-3 for value in kl(tmp_path)), "the trainer and vLLM agree on float32's log-probabilities"
    assert (tmp_path / "vllm" / "rank0.log").is_file()
    torch_run = tmp_path.with_name(tmp_path.name + "-torch")
    finish(start(torch_run, "rollout=torch", "selfplay.steps=2", "rollout.max_propose_tokens=112", "eval.items=0", "engine.threads=1"))
    print("\nrollout_kl of two steps in float32, nats a token")
    for name, folder in (("vllm", tmp_path), ("torch", torch_run)):
        print(f"  {name:<6} {' '.join(f'{value:+.1e}' for value in kl(folder))}")


def test_each_of_two_ranks_samples_with_a_server_of_its_own_and_both_end_with_the_run(tmp_path):
    words = ["train", *SETTINGS, *VLLM, "selfplay.steps=2", f"run_dir={tmp_path}"]
    others = serving()
    for ended in ranks(None, 2, *words, timeout=1200):
        assert ended.code == 0, ended.output
    logs = [(tmp_path / "vllm" / f"rank{rank}.log").read_text() for rank in range(2)]
    assert all(log.count("Resetting prefix cache") >= 2 for log in logs), "each took the weights of both updates"
    assert (tmp_path / "outcome").read_text() == "done 2\n"
    assert len(kl(tmp_path)) == 2
    assert all(abs(value) < 1e-3 for value in kl(tmp_path)), "of the samples of both"
    assert gone(list(serving() - others))


def test_a_sampler_rank_may_ask_a_server_that_is_not_the_runs_own_and_samples_beside_the_update(tmp_path):
    words = [*SETTINGS, *VLLM, "placement=split", "cluster.sampler_ranks=1", "selfplay.staleness=1", "selfplay.steps=3"]
    config = load_settings(words)
    owner = make_rollout(config.rollout, model_shape(config.model), torch.float32, [0], torch.device("cpu"))
    assert isinstance(owner, VllmRollout)
    try:
        server = owner._server
        assert server is not None
        place = [f"rollout.endpoints=['{server.url}']", f"run_dir={tmp_path}"]
        for ended in ranks(None, 2, "train", *words, *place, timeout=1200, **{SECRET: server.secret}):
            assert ended.code == 0, ended.output
        assert not server.gone(0.0), "whoever started it ends it"
    finally:
        owner.close()
    steps = [line for line in metrics(tmp_path) if line["step"]]
    assert [line["staleness/max"] for line in steps] == [0, 1, 1]
    assert abs(steps[0]["train/rollout_kl"]) < 1e-3, "drawn by the weights that learn from it; the others are not compared"
    assert not list((tmp_path / "vllm").glob("*.log")), "the run started none"


def test_weights_reach_a_sampler_between_tokens_while_it_draws_a_later_step(tmp_path):
    # Long answers, one at a time, so that the update ends before they do; between_tokens_job.py sees to it that they have begun.
    words = [
        *SETTINGS,
        *VLLM,
        "placement=split",
        "cluster.sampler_ranks=1",
        "selfplay.staleness=1",
        "selfplay.steps=4",
        "selfplay.batch_size=4",
    ]
    words += ["rollout.update_in_flight=true", "rollout.max_batch_rows=1", "rollout.max_propose_tokens=112", "rollout.max_solve_tokens=64"]
    others = serving()
    job, met = Path(__file__).with_name("between_tokens_job.py"), tmp_path / "met"
    for ended in ranks(job, 2, met, "train", *words, f"run_dir={tmp_path}", timeout=1200):
        assert ended.code == 0, ended.output
    assert "met" in met.read_text(), "some update ended while a batch was being drawn"
    steps = [line for line in metrics(tmp_path) if line["step"]]
    print("\nshare of answers with tokens of two versions, by step:", [line.get("staleness/mixed", 0) for line in steps])
    assert steps[0]["staleness/max"] == 0
    assert max(line["staleness/max"] for line in steps) == 1, "nothing is older than the bound"
    assert "staleness/mixed" not in steps[0]
    assert any(0 < line.get("staleness/mixed", 0) <= 1 for line in steps[1:])
    assert abs(steps[0]["train/rollout_kl"]) < 1e-3
    assert gone(list(serving() - others))


def test_a_killed_run_takes_its_server_along_and_is_resumed_and_a_stopped_server_ends_it_within_its_bound(tmp_path):
    settings = [*VLLM, "selfplay.steps=50", "rollout.vllm.patience_s=60"]
    run = start(tmp_path, *settings)
    reached(run, lambda: (tmp_path / "checkpoints" / "step_000001").is_dir())
    processes = servers(run)
    assert len(processes) >= 3
    run.kill(signal.SIGKILL)
    assert run.wait().code == -signal.SIGKILL
    assert gone(processes)
    again = start(tmp_path, *settings)
    reached(again, lambda: "resumed after step" in again.output())
    done = len(metrics(tmp_path))
    reached(again, lambda: len(metrics(tmp_path)) > done)
    processes = servers(again)
    for process in processes:
        process.suspend()
    began = time.monotonic()
    sentence = refused(again)
    assert "rollout.vllm.patience_s=60 s" in sentence
    assert "the run goes on from its last checkpoint" in sentence
    assert time.monotonic() - began < 240
    assert gone(processes)
