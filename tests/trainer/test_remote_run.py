"""A run on a remote executor is the run it would have been on a local one, and loses nothing when the server is gone."""

import time

import pytest
from servers import OurServer, answering, fusion
from tiny_run import WARMED, finish, refused, start, state

# Some proposals parse, so that every step needs the executor.
SETTINGS = [*WARMED, "selfplay.batch_size=6"]


@pytest.fixture
def run(cache):
    return lambda run_dir, *overrides: start(run_dir, *SETTINGS, *overrides, AZR_NEMO_CACHE=cache)


def remote(url: str) -> list[str]:
    return ["executor=sandbox_fusion", f"executor.endpoints=['{url}']", "executor.attempts=2", "executor.patience_s=5"]


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_where_programs_run_changes_neither_weights_nor_tasks(run, tmp_path):
    finish(run(tmp_path / "local", "selfplay.steps=3"))
    with OurServer() as server:
        output = finish(run(tmp_path / "ours", "selfplay.steps=3", *remote(server.url)))
    assert f"executor: remote executor: {server.url} (azr-nemo, local executor, rung" in output
    with answering(fusion) as url:
        output = finish(run(tmp_path / "fusion", "selfplay.steps=3", *remote(url)))
    assert f"executor: remote executor: {url} (Sandbox-Fusion)" in output
    for name in ("ours", "fusion"):
        assert state(tmp_path / name, 3) == state(tmp_path / "local", 3)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_server_lost_in_the_middle_ends_the_run_in_a_sentence_and_it_goes_on_with_another(run, tmp_path):
    run_dir = tmp_path / "run"
    with OurServer() as doomed:
        process = run(run_dir, "selfplay.steps=6", *remote(doomed.url))
        deadline = time.monotonic() + 1200
        while not (run_dir / "checkpoints" / "step_000002").is_dir():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        doomed.kill()
        assert f"a program could not be executed remotely: {doomed.url} cannot be reached" in refused(process)
    with OurServer() as another:
        assert "resumed after step" in finish(run(run_dir, "selfplay.steps=6", *remote(another.url)))
    finish(run(tmp_path / "whole", "selfplay.steps=6"))
    assert state(run_dir, 6) == state(tmp_path / "whole", 6)
