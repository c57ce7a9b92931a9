"""The resource server grades what NeMo Gym sends it, over its own routes, and plays the loop with Gym's own agents and model server."""

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("nemo_gym", reason="nemo-gym is in an environment of its own: `make test-environments`")

from answers import CASES, DEDUCTION, PROPOSAL  # noqa: E402
from chat_server import ChatServer  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from gym_servers import POLICY, GymServers  # noqa: E402
from nemo_gym.server_utils import ServerClient  # noqa: E402

from azr_nemo.environments.nemo_gym import AbsoluteZeroResourcesServer, AbsoluteZeroResourcesServerConfig  # noqa: E402
from azr_nemo.environments.referee import Reply, referee  # noqa: E402
from azr_nemo.environments.rows import rows_for, turns  # noqa: E402
from azr_nemo.errors import UserError  # noqa: E402
from azr_nemo.sandbox.executor import ExecutorUnavailable  # noqa: E402
from azr_nemo.tasks.task import Task  # noqa: E402

SELF_PLAY = ["executor.workers=1", "rollout.estimate_samples=4"]


def served(settings: list[str], **config: Any) -> Any:
    told = {"host": "127.0.0.1", "port": 1, "entrypoint": "app.py", "name": "absolute_zero", **config}
    server = AbsoluteZeroResourcesServer(
        config=AbsoluteZeroResourcesServerConfig(**told, settings=settings), server_client=MagicMock(spec=ServerClient)
    )
    return TestClient(server.setup_webserver(), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client() -> Any:
    with served(["executor.workers=1"]) as client:
        yield client


@pytest.fixture(scope="module")
def model() -> Iterator[ChatServer]:
    """Whose `answer` a test replaces."""
    with ChatServer(lambda system, user: "") as server:
        yield server


@pytest.fixture(scope="module")
def gym(model: ChatServer) -> Iterator[GymServers]:
    referee(tuple(SELF_PLAY))
    with GymServers(model.url, SELF_PLAY) as servers:
        yield servers


def turn(role: str, type: str, number: int, **params: Any) -> dict[str, Any]:
    """A row of self-play."""
    rows = [row for row in turns(number + 1, [role], [type]) if row["turn"]["number"] == number]
    return {**rows[0], "responses_create_params": {**rows[0]["responses_create_params"], **params}}


def proposes(program: str, *answers: str) -> Any:
    """Proposes this program and then answers so, one after another, the last one again and again."""
    left = list(answers)

    def answer(system: str, user: str) -> str:
        if "Write a new short Python function" in user:
            return program
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def body(task: Task, reply: Reply) -> dict[str, Any]:
    """A row of the data set, and the response of a model as Gym's own model servers give it."""
    (row,) = json.loads(json.dumps(rows_for([task], "nemo_gym")))
    said = {"type": "output_text", "text": reply.text, "annotations": []}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [said]}
    response = {"id": "r", "created_at": 0.0, "model": "tiny", "object": "response", "output": [message]}
    response |= {"parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    response["incomplete_details"] = None if reply.finished else {"reason": "max_output_tokens"}
    return {**row, "response": response}


@pytest.mark.parametrize("case", range(len(CASES)))
def test_an_answer_earns_what_it_earns_in_training(client, case):
    task, reply, _, reward = CASES[case]
    answer = client.post("/verify", json=body(task, reply))
    assert answer.status_code == 200, answer.text
    said = answer.json()
    graded = referee(("executor.workers=1",)).grade(task, reply)
    assert (said["reward"], said["score"], said["reason"]) == (reward, graded.score, graded.reason)


def test_a_row_without_a_task_is_refused(client):
    sent = body(*CASES[0][:2])
    del sent["task"]
    assert client.post("/verify", json=sent).status_code == 422


def test_a_dead_sandbox_is_an_error_and_no_reward(client, monkeypatch):
    def dead(*_: Any) -> Any:
        raise RuntimeError("the sandbox is gone")

    monkeypatch.setattr(referee(("executor.workers=1",)), "grade", dead)
    assert client.post("/verify", json=body(*CASES[0][:2])).status_code == 500


def test_a_row_that_is_no_task_is_refused_in_a_sentence(client):
    sent = {**body(*CASES[0][:2]), "task": {"type": "riddle"}}
    answer = client.post("/verify", json=sent)
    assert (answer.status_code, "a task needs type, program" in answer.json()["detail"]) == (422, True)


def test_a_setting_that_is_none_is_refused_before_anything_is_served():
    with pytest.raises(UserError, match=r"reward\.rihgt"):
        served(["reward.rihgt=1"])


def test_gyms_simple_agent_has_a_task_answered_and_graded(gym, model):
    model.answer = lambda system, user: "RESULT: 7" if DEDUCTION.program in user else ""
    said = gym.run(rows_for([DEDUCTION], "nemo_gym")[0])
    assert (said.status_code, said.json()["reward"], said.json()["reason"]) == (200, 1.0, "right")


def test_the_loop_pays_a_proposal_by_the_policys_answers_and_then_has_it_solved(gym, model):
    """Gym's gymnasium_agent and vLLM model server play; the settings of the row's sampling hold for the answers too."""
    buffer = referee(tuple(SELF_PLAY)).buffer
    before = buffer.count()
    model.answer = proposes(PROPOSAL, "RESULT: 9", "RESULT: 8")
    del model.asked[:]
    said = gym.run(turn("propose", "deduction", 0, temperature=0.7, max_output_tokens=99)).json()
    assert (said["reward"], said["info"]) == (0.75, {"valid": True, "reason": "", "solve_rate": 0.25})
    assert "Write a new short Python function" in said["responses_create_params"]["input"][-1]["content"]
    assert said["response"]["output"][0]["content"][0]["text"] == PROPOSAL
    assert [(asked["temperature"], asked["max_tokens"], len(asked["messages"])) for asked in model.asked] == [(0.7, 99, 2)] * 5
    assert all("tools" not in asked and "tool_choice" not in asked for asked in model.asked[1:])
    assert buffer.count() == before + 1
    model.answer = lambda system, user: "RESULT: 9" if "return x * y - x" in user else "RESULT: 0"
    said = gym.run(turn("solve", "deduction", 0)).json()  # what was proposed comes before the seeds
    assert (said["reward"], said["info"]) == (1.0, {"score": 1.0, "reason": "right"})
    (stored,) = [stored for stored in buffer.tasks() if not stored.is_seed]
    assert (stored.attempts, stored.solved) == (5, 2)
    model.answer = proposes(PROPOSAL, "RESULT: 9")
    del model.asked[:]
    said = gym.run(turn("propose", "deduction", 1)).json()
    assert (said["reward"], said["info"]) == (referee(tuple(SELF_PLAY)).config.reward.duplicate, {"valid": False, "reason": "duplicate"})
    assert len(model.asked) == 1  # a duplicate is not solved


def test_a_group_answers_one_prompt_and_what_is_no_task_earns_its_penalty(gym, model):
    prompts = []

    def refuses(system: str, user: str) -> str:
        prompts.append(user)
        return "I would rather not"

    model.answer = refuses
    said = [gym.run(turn("propose", "abduction", 7)).json() for _ in range(3)]
    assert [(one["reward"], one["info"]) for one in said] == [(-1.0, {"valid": False, "reason": "format"})] * 3
    assert len(prompts) == 3
    assert len(set(prompts)) == 1
    prompts.clear()
    assert [gym.run(turn("solve", "induction", 7)).json()["reward"] for _ in range(3)] == [-1.0] * 3
    assert len(set(prompts)) == 1


def test_an_answer_that_cannot_be_graded_fails_the_turn_and_pays_nobody(gym, model, monkeypatch):
    judge = referee(tuple(SELF_PLAY))
    before = judge.buffer.count()

    def dead(*_: Any) -> Any:
        raise ExecutorUnavailable("the sandbox is gone")

    monkeypatch.setattr(judge, "grade", dead)
    model.answer = proposes(PROPOSAL.replace("x * y - x", "x * y + x"), "RESULT: 9")
    said = gym.run(turn("propose", "deduction", 2))
    assert said.status_code == 500
    assert judge.buffer.count() == before


def test_self_play_says_what_it_cannot_do(client):
    def refused(client: Any, path: str, sent: dict[str, Any]) -> str:
        answer = client.post(path, json=sent)
        assert answer.status_code == 422, answer.text
        return str(answer.json()["detail"])

    proposing = turn("propose", "deduction", 0)
    assert "model_server is missing in the configuration" in refused(client, "/reset", proposing)
    response = body(*CASES[0][:2])["response"]
    assert "this session was asked nothing" in refused(client, "/step", {**proposing, "response": response})
    assert "'propose' or 'solve'" in refused(client, "/reset", {**proposing, "turn": {"role": "judge", "type": "deduction", "number": 0}})
    assert "'riddle' is no task type" in refused(client, "/reset", {**proposing, "turn": {"role": "solve", "type": "riddle", "number": 0}})
    with served(["executor.workers=1"], num_workers=2, model_server=POLICY) as many:
        assert "num_workers=2: self-play has one buffer" in refused(many, "/reset", proposing)
