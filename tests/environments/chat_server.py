"""A stand-in for a server of chat completions as OpenAI's, vLLM's and prime-rl's are: whoever asks is answered by a function of the messages."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Answer = Callable[[str, str], "str | tuple[str, str]"]  # system and user message to a reply, or to a reply and why it ended


class ChatServer:
    """Serves on a free port of this machine until the block ends. asked: the bodies that came, in order."""

    def __init__(self, answer: Answer):
        self.answer, self.asked = answer, list[dict[str, Any]]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                said = {message["role"]: message["content"] for message in body["messages"]}
                reply = server.answer(said.get("system", ""), said["user"])
                text, end = (reply, "stop") if isinstance(reply, str) else reply
                choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                answer = {"id": "a", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage}
                data = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
