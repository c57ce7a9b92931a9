"""The resource server grades what NeMo Gym sends it, over its own routes."""

import json
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("nemo_gym", reason="nemo-gym is in an environment of its own: `make test-environments`")

from answers import CASES  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from nemo_gym.server_utils import ServerClient  # noqa: E402

from azr_nemo.environments.nemo_gym import AbsoluteZeroResourcesServer, AbsoluteZeroResourcesServerConfig  # noqa: E402
from azr_nemo.environments.referee import Reply, referee  # noqa: E402
from azr_nemo.environments.rows import rows_for  # noqa: E402
from azr_nemo.tasks.task import Task  # noqa: E402


@pytest.fixture(scope="module")
def client() -> Any:
    config = AbsoluteZeroResourcesServerConfig(
        host="127.0.0.1", port=1, entrypoint="app.py", name="absolute_zero", settings=["executor.workers=1"]
    )
    server = AbsoluteZeroResourcesServer(config=config, server_client=MagicMock(spec=ServerClient))
    with TestClient(server.setup_webserver(), raise_server_exceptions=False) as client:
        yield client


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
