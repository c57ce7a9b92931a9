"""ASGI middleware (`--middleware azr_guard.Guard`): only who knows the run's secret is heard.

The server runs with VLLM_SERVER_DEV_MODE, whose /collective_rpc executes what it is told, and its own --api-key leaves that path open; other users of
the machine can reach 127.0.0.1 as well as the run can.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    def __init__(self, app: App) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ['AZR_NEMO_SECRET']}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if not any(name == b"authorization" and hmac.compare_digest(value, self._expected) for name, value in scope["headers"]):
            await send({"type": "http.response.start", "status": 401, "headers": []})
            return await send({"type": "http.response.body", "body": b"unauthorized"})
        return await self._app(scope, receive, send)
