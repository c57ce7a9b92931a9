"""Servers for the tests of the remote executor: ours in a process of its own, one that runs scripts as Sandbox-Fusion does, and ones that misbehave."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import process_trees

READ_AT_ONCE = 219_264  # bytes of output that Sandbox-Fusion was seen to return of more


class OurServer:
    """`azr-nemo sandbox serve` on a free port."""

    def __init__(self, *options: str, environment: dict[str, str] | None = None):
        command = [sys.executable, "-m", "azr_nemo", "sandbox", "serve", "--port", "0", "--workers", "2", *options]
        self.process = process_trees.Process(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        self.first_line = self.process.stdout.readline()
        self.url = next((word for word in self.first_line.split() if word.startswith("http://")), "")

    def stop(self) -> tuple[int, str]:
        """Its exit status and what it said last."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def kill(self) -> None:
        self.process.kill()
        with self.process:
            self.process.wait()

    def __enter__(self) -> "OurServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler, str, Any], None]) -> Iterator[str]:
    """The URL of a server that calls answer(handler, path, body) for each request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, self.path, None)

        def do_POST(self) -> None:
            answer(self, self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def reply(handler: BaseHTTPRequestHandler, status: int, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def run_as_fusion_does(body: dict[str, Any], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """POST /run_code of Sandbox-Fusion with isolation `none`: a fresh interpreter, a time limit, output that is cut without a word."""
    process = process_trees.Process(
        [sys.executable, "-c", body["code"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False,
        env={"PATH": os.environ["PATH"], **(environment or {})},
    )  # fmt: skip
    with process:
        try:
            out, err = process.communicate((body["stdin"] or "").encode(), timeout=body["run_timeout"])
            status, code = "Finished", process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            status, code = "TimeLimitExceeded", None
    run = {
        "status": status, "execution_time": 0.1, "return_code": code,
        "stdout": out[:READ_AT_ONCE].decode(errors="replace"), "stderr": err.decode(errors="replace"),
    }  # fmt: skip
    verdict = "Success" if code == 0 else "Failed"
    return {"status": verdict, "message": "", "compile_result": None, "run_result": run, "executor_pod_name": None, "files": {}}


def fusion(handler: BaseHTTPRequestHandler, path: str, body: Any, **environment: str) -> None:
    """Sandbox-Fusion as far as a client of /run_code can tell."""
    if path == "/v1/ping":
        reply(handler, 200, "pong")
    elif path == "/run_code":
        reply(handler, 200, run_as_fusion_does(body, environment))
    else:
        reply(handler, 404, {"detail": "Not Found"})
