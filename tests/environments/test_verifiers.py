"""Absolute Zero as an environment of verifiers 0.4, played by its own machinery against a server of chat completions."""

import asyncio
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import process_trees
import pytest

vf = pytest.importorskip("verifiers.v1", reason="verifiers 0.4 is in an environment of its own: `make test-environments`")

from answers import CASES, PROPOSAL, row  # noqa: E402
from chat_server import Answer, ChatServer  # noqa: E402
from vllm_chat import PYTHON, VllmChat  # noqa: E402

from azr_nemo.environments.referee import task_of  # noqa: E402
from azr_nemo.errors import UserError  # noqa: E402
from azr_nemo.rewards.learnability import learnability  # noqa: E402
from azr_nemo.sandbox.executor import ExecutorUnavailable  # noqa: E402

SETTINGS = ["executor.workers=1", "rollout.estimate_samples=4", "selfplay.induction_pairs=4"]


def environment(play: str, seeds: Path | None = None, **config: Any) -> Any:
    words = [*SETTINGS, *([f"data.seed_files=[{seeds}]"] if seeds else []), *config.pop("settings", [])]
    data = {"taskset": {"id": "absolute-zero", "play": play, "task": {"settings": words}}, **config}
    return vf.load_environment(vf.resolve_env_config(data))


def episodes(env: Any, answer: Answer, tasks: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One episode of each of the first tasks, one after another."""
    with ChatServer(answer) as server:
        return played(env, server.url, tasks, monkeypatch)


def played(env: Any, url: str, tasks: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> list[Any]:
    """The same with the server at this address, so many times."""
    monkeypatch.setenv("STAND_IN_KEY", "none")

    async def play() -> list[Any]:
        context = vf.ModelContext(model="tiny", client=vf.EvalClientConfig(base_url=url, api_key_var="STAND_IN_KEY"))
        async with env.serving():
            slots = [slot for _ in range(times) for task in env.taskset.take(tasks) for slot in env.slots(task)]
            return [await env.run_slot(slot, context) for slot in slots]

    return asyncio.run(play())


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """The tasks of the shared cases, as a seed file."""
    path = tmp_path / "seeds.jsonl"
    kept = {task.type: task for task, *_ in CASES}.values()
    rows = [{"type": t.type.value, "program": t.program, "inputs": t.inputs, "outputs": t.outputs, "message": t.message} for t in kept]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_are_scored_as_azr_nemo_grade_scores_them(seeds, tmp_path, monkeypatch):
    """Each case is one episode: the same task comes again until all its replies were given."""
    replies = defaultdict(list)
    for task, said, answer, reward in CASES:
        replies[task.type].append((said, answer, reward))
    rows, scores = [], []
    for round in range(max(map(len, replies.values()))):
        env = environment("solve", seeds)
        found = {task.data.prompt: task for task in env.taskset if task.data.known["program"] == CASES[0][0].program}
        assert len(found) == 3

        def answer(system: str, user: str, round: int = round, found: dict[str, Any] = found) -> tuple[str, str]:
            said = replies[found[user].data.type][round % len(replies[found[user].data.type])][0] if user in found else None
            return (said.text, "stop" if said.finished else "length") if said else ("RESULT: 0", "stop")

        for episode in episodes(env, answer, 6, monkeypatch):
            (trace,) = episode.traces
            if trace.task.data.prompt in found:
                kind = trace.task.data.type
                said, stated, reward = replies[kind][round % len(replies[kind])]
                assert trace.rewards["solver"].score == reward, (kind, said)
                assert episode.ok
                if stated is not None:
                    rows.append(row(next(task for task, *_ in CASES if task.type == kind), stated))
                    scores.append(trace.metrics["score"])
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in rows))
    graded = process_trees.run([sys.executable, "-m", "azr_nemo", "grade", file], check=True, timeout=120).stdout.splitlines()
    assert len(scores) > 10
    assert scores == [json.loads(line)["score"] for line in graded]


def test_the_loop_pays_the_proposer_by_its_solvers_and_keeps_the_task(monkeypatch):
    env = environment("self_play", settings=["selfplay.task_types=[deduction]", "seed=11"])
    buffer, asked = env.taskset.referee.buffer, []

    def answer(system: str, user: str) -> str:
        asked.append(user)
        if "Write a new short Python function" in user:
            return PROPOSAL
        return "RESULT: 9" if asked.count(user) == 1 else "RESULT: 8"

    before = buffer.count()
    first, second = episodes(env, answer, 2, monkeypatch)
    proposer, *solvers = first.traces
    assert [trace.agent.name for trace in first.traces] == ["proposer"] + ["solver"] * 4
    assert proposer.rewards["proposer"].score == 0.75
    assert (proposer.metrics["solve_rate"], proposer.metrics["valid"]) == (0.25, 1)
    assert sorted(trace.rewards["solver"].score for trace in solvers) == [-0.5, -0.5, -0.5, 1.0]
    assert buffer.count() == before + 1
    (again,) = second.traces  # a duplicate is not solved
    assert again.rewards["proposer"].score == env.taskset.referee.config.reward.duplicate
    assert again.metrics["valid"] == 0
    assert all(trace.agent.trainable for trace in first.traces)


def test_a_seat_may_be_left_untrained(monkeypatch):
    env = environment("self_play", train_solver=False, settings=["selfplay.task_types=[abduction]", "seed=12"])
    (episode,) = episodes(env, lambda system, user: PROPOSAL if "Write a new" in user else "RESULT: f(3, 4)", 1, monkeypatch)
    assert {trace.agent.name: trace.agent.trainable for trace in episode.traces} == {"proposer": True, "solver": False}


def test_what_is_no_task_earns_its_penalty_without_solvers(monkeypatch):
    env = environment("self_play", settings=["seed=13"])
    (episode,) = episodes(env, lambda system, user: "I would rather not", 1, monkeypatch)
    (trace,) = episode.traces
    assert trace.rewards["proposer"].score == -1
    assert episode.ok


def test_a_dead_sandbox_fails_the_episode_and_pays_nobody(monkeypatch):
    env = environment("self_play", settings=["selfplay.task_types=[deduction]", "seed=14"])
    judge = env.taskset.referee

    def dead(*_: Any) -> Any:
        raise ExecutorUnavailable("the sandbox is gone")

    monkeypatch.setattr(judge, "settle", dead)
    (episode,) = episodes(env, lambda system, user: PROPOSAL, 1, monkeypatch)
    assert not episode.ok
    assert "the sandbox is gone" in episode.errors[-1].message
    assert not episode.traces[0].rewards


def test_a_task_knows_without_a_model_whether_its_known_answer_is_right(seeds):
    env = environment("solve", seeds)
    assert all(asyncio.run(task.validate(None)) for task in env.taskset)


def test_the_eval_command_finds_the_environment_by_its_name(tmp_path, seeds):
    def answer(system: str, user: str) -> str:
        return "RESULT: 7"

    words = json.dumps([*SETTINGS, f"data.seed_files=[{seeds}]", "selfplay.task_types=[deduction]"])
    with ChatServer(answer) as server:
        command = [
            Path(sys.executable).parent / "vf-eval", "absolute-zero", "--env.taskset.play", "solve", "--env.taskset.task.settings", words,
            "--model", "tiny", "--client.base-url", server.url, "--client.api-key-var", "STAND_IN_KEY", "-n", "2",
            "--output-dir", tmp_path / "out", "--rich", "None",
        ]  # fmt: skip
        done = process_trees.run(command, timeout=200, env={**os.environ, "STAND_IN_KEY": "none"}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    traces = [json.loads(line) for path in (tmp_path / "out").rglob("traces.jsonl") for line in path.read_text().splitlines()]
    assert traces


def test_an_unknown_setting_is_refused_in_a_sentence():
    env = environment("solve", settings=["reward.rihgt=1"])
    with pytest.raises(UserError, match=r"reward\.rihgt"):
        list(env.taskset)


@pytest.mark.skipif(not PYTHON.is_file(), reason="a real vLLM behind the environment: `make vllm`, or AZR_VLLM_PYTHON=PYTHON")
@pytest.mark.timeout(1500)
def test_what_a_real_vllm_answers_is_scored_as_azr_nemo_grade_scores_it(seeds, tmp_path, monkeypatch):
    """A tiny model with random weights: it is bound to a form, and free within it."""

    def seat(**sampling: Any) -> dict[str, Any]:
        return {"runtime": {"type": "subprocess"}, "sampling": {"max_tokens": 96, "temperature": 1.0, **sampling}}

    def one_of(*texts: str) -> dict[str, Any]:
        return seat(structured_outputs={"choice": texts})

    with VllmChat(tmp_path) as server:
        env = environment("solve", seeds, settings=["selfplay.task_types=[deduction]"], solver=one_of("RESULT: 7", "RESULT: 8", "RESULT"))
        judge, answers = env.taskset.referee, []
        for episode in played(env, server.url, 2, monkeypatch, times=6):
            (trace,) = episode.traces
            answer = trace.last_reply.removeprefix("RESULT").removeprefix(": ")
            expected = judge.verify(task_of(trace.task.data.known), answer).score if answer else 0
            assert (episode.ok, trace.metrics["score"]) == (True, expected)
            answers.append(answer)
        assert len(set(answers)) > 1

        loop = {
            "settings": ["selfplay.task_types=[deduction]", "seed=15"],
            "proposer": one_of(PROPOSAL),
            "solver": one_of("RESULT: 9", "RESULT: 8"),
        }
        (episode,) = played(environment("self_play", **loop), server.url, 1, monkeypatch)
        proposer, *solvers = episode.traces
        right = [trace.last_reply == "RESULT: 9" for trace in solvers]
        assert [trace.rewards["solver"].score for trace in solvers] == [1.0 if is_right else -0.5 for is_right in right]
        assert (proposer.last_reply, len(right), proposer.metrics["solve_rate"]) == (PROPOSAL, 4, sum(right) / 4)
        assert proposer.rewards["proposer"].score == learnability(sum(right) / 4, judge.config.reward)

        (episode,) = played(environment("self_play", settings=["seed=16"], proposer=seat()), server.url, 1, monkeypatch)
        (trace,) = episode.traces  # what it says unbound is no task, and cut off
        assert (trace.is_truncated, trace.rewards["proposer"].score) == (True, -1)
