"""NeMo Gym's own agents and model server beside our resource server, each on a port of this machine, as Gym itself would start them."""

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any, Self

import httpx
import nemo_gym.server_utils as gym
import uvicorn
from nemo_gym.config_types import BaseServerConfig, ModelServerRef, ResourcesServerRef
from omegaconf import OmegaConf
from responses_api_agents.gymnasium_agent.app import GymnasiumAgent, GymnasiumAgentConfig
from responses_api_agents.simple_agent.app import SimpleAgent, SimpleAgentConfig
from responses_api_models.vllm_model.app import VLLMModel, VLLMModelConfig

from azr_nemo.environments.nemo_gym import AbsoluteZeroResourcesServer, AbsoluteZeroResourcesServerConfig

POLICY = ModelServerRef(type="responses_api_models", name="policy_model")
RESOURCES = ResourcesServerRef(type="resources_servers", name="absolute_zero")
NAMES = ("policy_model", "absolute_zero", "gymnasium_agent", "simple_agent")


class GymServers:
    """They serve until the block ends. model_url: where chat completions are, with /v1. Make the referee of `settings` before: a sandbox ends with the
    thread that started it."""

    def __init__(self, model_url: str, settings: list[str], model: str = "tiny"):
        sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in NAMES}
        at = {name: {"host": "127.0.0.1", "port": bound.getsockname()[1]} for name, bound in sockets.items()}
        known = OmegaConf.create({name: {"kind": {"class": where}} for name, where in at.items()})
        client = gym.ServerClient(head_server_config=BaseServerConfig(host="127.0.0.1", port=1), global_config_dict=known)
        told = {name: {**where, "entrypoint": "app.py", "name": name} for name, where in at.items()}
        policy = {
            "base_url": model_url,
            "api_key": "none",
            "model": model,
            "return_token_id_information": False,
            "uses_reasoning_parser": False,
        }
        seats = {"resources_server": RESOURCES, "model_server": POLICY}
        servers: list[Any] = [
            VLLMModel(config=VLLMModelConfig(**told["policy_model"], **policy), server_client=client),
            AbsoluteZeroResourcesServer(
                config=AbsoluteZeroResourcesServerConfig(**told["absolute_zero"], settings=settings, model_server=POLICY),
                server_client=client,
            ),
            GymnasiumAgent(config=GymnasiumAgentConfig(**told["gymnasium_agent"], **seats, max_steps=1), server_client=client),
            SimpleAgent(config=SimpleAgentConfig(**told["simple_agent"], **seats), server_client=client),
        ]
        self._sockets = list(sockets.values())
        self._served = [uvicorn.Server(uvicorn.Config(server.setup_webserver(), log_level="critical")) for server in servers]
        self._agents = {name: f"http://127.0.0.1:{at[name]['port']}/run" for name in NAMES[2:]}
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def run(self, row: dict[str, Any]) -> httpx.Response:
        """What the row's agent answers: `gymnasium_agent` to a turn, `simple_agent` to a task."""
        return httpx.post(self._agents["gymnasium_agent" if "turn" in row else "simple_agent"], json=row, timeout=120, trust_env=False)

    async def _serve(self) -> None:
        client = gym.set_global_aiohttp_client(gym.GlobalAIOHTTPAsyncClientConfig())
        try:
            await asyncio.gather(*(server.serve([bound]) for server, bound in zip(self._served, self._sockets, strict=True)))
        finally:
            await client.close()
            gym._GLOBAL_AIOHTTP_CLIENT = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for server in self._served:
            server.should_exit = True
        self._thread.join()
