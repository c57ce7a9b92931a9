"""Absolute Zero as a resource server of NeMo Gym: it says what a model's answer earns, and for self-play what is asked.

Gym's own agents do the sampling. `simple_agent` answers the rows of a data set, which `/verify` grades. `gymnasium_agent` plays the loop: `/reset` writes
the prompt of a turn to propose or to solve, `/step` pays for what came back. What a proposal earns depends on several answers of the policy to it; the
server asks the model server for them, as Gym's judges ask theirs. A folder `resources_servers/absolute_zero` whose app.py imports the server is all
that Gym needs beside its configuration (docs/environments.md).
"""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from nemo_gym.base_resources_server import (
    BaseResourcesServerConfig,
    BaseRunRequest,
    BaseVerifyRequest,
    BaseVerifyResponse,
    SimpleResourcesServer,
)
from nemo_gym.config_types import ModelServerRef
from nemo_gym.openai_utils import NeMoGymResponse, NeMoGymResponseCreateParamsNonStreaming
from nemo_gym.server_utils import SESSION_ID_KEY, get_response_json, raise_for_status
from pydantic import BaseModel, BeforeValidator, PrivateAttr
from resources_servers.gymnasium import EnvResetResponse, EnvStepResponse

from azr_nemo.environments.referee import Graded, Referee, Reply, messages, referee, settings, task_of
from azr_nemo.errors import UserError
from azr_nemo.selfplay.buffer import StoredTask
from azr_nemo.selfplay.proposer import Proposed
from azr_nemo.tasks.task import Role, Task, TaskType


class AbsoluteZeroResourcesServerConfig(BaseResourcesServerConfig):
    settings: list[str] = []
    """KEY=VALUE as of `azr-nemo train`: reward.*, executor.*; of self-play also data.seed_files, rollout.estimate_samples, selfplay.*"""
    buffer: str = ""
    """The file of self-play's buffer, which one process at a time writes; empty: a temporary one."""
    model_server: ModelServerRef | None = None
    """Who answers proposals: the policy's. Rows to solve need none."""


class AbsoluteZeroVerifyRequest(BaseVerifyRequest):
    task: dict[str, Any]
    """As `azr-nemo seed --schema nemo_gym` writes it."""


class AbsoluteZeroVerifyResponse(BaseVerifyResponse):
    """score: how right, in [0, 1]; reason: right, wrong_value, format, timeout and others."""

    score: float
    reason: str


class Turn(BaseModel):
    """A row of self-play, as `python -m azr_nemo.environments.rows` writes it. Rows of one number answer the same prompt: a group can be compared."""

    role: Role
    type: Annotated[Any, BeforeValidator(TaskType)]
    number: int


class AbsoluteZeroResetRequest(BaseRunRequest):
    turn: Turn


class AbsoluteZeroStepRequest(BaseVerifyRequest):
    turn: Turn


class AbsoluteZeroResourcesServer(SimpleResourcesServer):
    config: AbsoluteZeroResourcesServerConfig
    _asked: dict[str, Proposed | StoredTask] = PrivateAttr(default_factory=dict)  # by session, until its answer comes

    def setup_webserver(self) -> FastAPI:
        settings(self.config.settings)  # what is wrong in them is said before anything is served
        app = super().setup_webserver()
        app.post("/reset")(self.reset)
        app.post("/step")(self.step)
        app.add_exception_handler(UserError, _refused)
        return app

    @property
    def referee(self) -> Referee:
        """The one of this process."""
        return referee(tuple(self.config.settings), self.config.buffer)

    async def verify(self, body: AbsoluteZeroVerifyRequest) -> AbsoluteZeroVerifyResponse:
        """The reward of the answer, as in training. A sandbox that fails is an error of the request, never a reward."""
        graded = await asyncio.to_thread(self.referee.grade, task_of(body.task), _reply(body.response))
        sent = body.model_dump(include={"responses_create_params", "response"})
        return AbsoluteZeroVerifyResponse(**sent, reward=graded.reward, score=graded.score, reason=graded.reason)

    async def reset(self, body: AbsoluteZeroResetRequest, request: Request) -> EnvResetResponse:
        """The prompt of a turn: what its references are, or its task, is drawn now, from the buffer as it stands."""
        if (self.config.num_workers or 1) > 1:
            raise UserError(f"num_workers={self.config.num_workers}: self-play has one buffer, which one process writes; set 1")
        judge, turn = self.referee, body.turn
        if turn.role is Role.PROPOSE:
            if self.config.model_server is None:
                raise UserError("model_server is missing in the configuration: what a proposal earns depends on the policy's answers")
            proposed = await asyncio.to_thread(judge.propose, turn.type, turn.number)
            self._asked[_session(request)], prompt = proposed, messages(proposed.row.prompt.text)
        else:
            stored = await asyncio.to_thread(judge.draw, turn.type, turn.number)
            self._asked[_session(request)], prompt = stored, judge.ask(stored.task)
        return EnvResetResponse(observation=prompt.user)

    async def step(self, body: AbsoluteZeroStepRequest, request: Request) -> EnvStepResponse:
        """What the turn earns. An answer that could not be had or graded is an error of the request: a solve rate is never guessed."""
        asked = self._asked.pop(_session(request), None)
        if asked is None:
            raise UserError("this session was asked nothing: an answer to /step follows the prompt of /reset, once")
        judge, reply = self.referee, _reply(body.response)
        if isinstance(asked, StoredTask):
            graded = await asyncio.to_thread(judge.grade, asked.task, reply)
            await asyncio.to_thread(judge.record, asked, graded)
            return EnvStepResponse(reward=graded.reward, terminated=True, info={"score": graded.score, "reason": graded.reason})
        task = await asyncio.to_thread(judge.settle, asked, reply)
        answers = await self._answers(task, body.responses_create_params) if task else []
        reward = await asyncio.to_thread(judge.earn, asked, [graded.score for graded in answers])
        info: dict[str, Any] = {"valid": asked.fresh, "reason": asked.refusal}
        return EnvStepResponse(reward=reward, terminated=True, info=info | ({"solve_rate": asked.solve_rate} if answers else {}))

    async def _answers(self, task: Task, sampling: NeMoGymResponseCreateParamsNonStreaming) -> list[Graded]:
        """The policy's `rollout.estimate_samples` answers to a new task, sampled as the proposal was, graded."""
        judge, policy = self.referee, self.config.model_server
        assert policy is not None  # /reset saw to it
        prompt = judge.ask(task)
        said = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}]
        params = {**sampling.model_dump(exclude_defaults=True), "input": said}  # a default that is spelt out is refused by some servers

        async def answer() -> Graded:
            response = await self.server_client.post(server_name=policy.name, url_path="/v1/responses", json=params)
            await raise_for_status(response)
            reply = _reply(NeMoGymResponse.model_validate(await get_response_json(response)))
            return await asyncio.to_thread(judge.grade, task, reply)

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(answer()) for _ in range(judge.config.rollout.estimate_samples)]
        return [one.result() for one in asked]


def _reply(response: NeMoGymResponse) -> Reply:
    """What the model said, and whether it ended by itself."""
    return Reply(response.output_text, response.incomplete_details is None)


def _session(request: Request) -> str:
    return str(request.session[SESSION_ID_KEY])


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """A sentence for what the user can mend."""
    return JSONResponse({"detail": str(error)}, status_code=422)
