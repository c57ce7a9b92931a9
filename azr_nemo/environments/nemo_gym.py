"""The three task types as a resource server of NeMo Gym: it is sent what a model answered and says what that earns.

A folder `resources_servers/absolute_zero` whose app.py is `from azr_nemo.environments.nemo_gym import AbsoluteZeroResourcesServer` and its
`run_webserver()` is all that Gym needs beside its configuration (docs/environments.md).
"""

import asyncio
from typing import Any

from nemo_gym.base_resources_server import BaseResourcesServerConfig, BaseVerifyRequest, BaseVerifyResponse, SimpleResourcesServer

from azr_nemo.environments.referee import Reply, referee, task_of


class AbsoluteZeroResourcesServerConfig(BaseResourcesServerConfig):
    settings: list[str] = []
    """KEY=VALUE as of `azr-nemo train`: reward.*, executor.*"""


class AbsoluteZeroVerifyRequest(BaseVerifyRequest):
    task: dict[str, Any]
    """As `azr-nemo seed --schema nemo_gym` writes it."""


class AbsoluteZeroVerifyResponse(BaseVerifyResponse):
    """score: how right, in [0, 1]; reason: right, wrong_value, format, timeout and others."""

    score: float
    reason: str


class AbsoluteZeroResourcesServer(SimpleResourcesServer):
    config: AbsoluteZeroResourcesServerConfig

    async def verify(self, body: AbsoluteZeroVerifyRequest) -> AbsoluteZeroVerifyResponse:
        """The reward of the answer, as in training. A sandbox that fails is an error of the request, never a reward."""
        judge = referee(tuple(self.config.settings))
        text, finished = body.response.output_text, body.response.incomplete_details is None
        graded = await asyncio.to_thread(judge.grade, task_of(body.task), Reply(text, finished))
        sent = body.model_dump(include={"responses_create_params", "response"})
        return AbsoluteZeroVerifyResponse(**sent, reward=graded.reward, score=graded.score, reason=graded.reason)
