"""Serves a report while its runs go on, to this machine alone. What has not changed is neither read nor sent again."""

import hashlib
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from azr_nemo.errors import UserError
from azr_nemo.observe.report.blocks import blocks
from azr_nemo.observe.report.page import page
from azr_nemo.observe.report.read import Reader

HOST = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LiveReport:
    """The blocks of some runs as they are now. For any number of threads."""

    def __init__(self, readers: Sequence[Reader]):
        """Raises UserError when one is no run or has not finished a step yet."""
        self.readers = readers
        self._lock = threading.Lock()
        self._stamp: tuple[Any, ...] | None = None
        self._blocks: dict[str, str] = {}
        self._hashes: dict[str, str] = {}
        self.hashes()

    def hashes(self) -> dict[str, str]:
        """A hash of each block, after reading the runs again if their files have changed."""
        with self._lock:
            stamp = tuple(reader.stamp() for reader in self.readers)  # before reading: what changes meanwhile is read the next time
            if stamp != self._stamp:
                self._blocks = blocks([reader.read() for reader in self.readers], live=True)
                self._hashes = {name: hashlib.sha256(text.encode("ascii")).hexdigest() for name, text in self._blocks.items()}
                self._stamp = stamp
            return self._hashes

    def block(self, name: str) -> str | None:
        with self._lock:
            return self._blocks.get(name)


def application(report: LiveReport, title: str) -> Starlette:
    """GET / is the page, /blocks the hashes of its blocks, /blocks/NAME one of them. Only for requests that name this machine as their host."""
    text = page(title, {}, live=True)

    def whole(request: Request) -> Response:
        return HTMLResponse(text, headers=HEADERS)

    def hashes(request: Request) -> Response:
        try:
            return JSONResponse(report.hashes(), headers=HEADERS)
        except UserError as error:  # the run was removed, or begun anew
            return PlainTextResponse(str(error), 503, headers=HEADERS)

    def block(request: Request) -> Response:
        content = report.block(request.path_params["name"])
        if content is None:
            return PlainTextResponse("there is no such block", 404, headers=HEADERS)
        return Response(content, media_type="application/json", headers=HEADERS)

    # Against pages elsewhere that have their own name point to 127.0.0.1 (DNS rebinding).
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=[Route("/", whole), Route("/blocks", hashes), Route("/blocks/{name}", block)], middleware=[hosts])


def serve(directories: Sequence[Path], titles: Sequence[str], port: int, say: Callable[[str], None]) -> None:
    """Until Ctrl-C. port: 0 for any free one. Raises UserError when a run cannot be read or the port is taken."""
    report = LiveReport([Reader(path, name) for path, name in zip(directories, titles, strict=True)])
    app = application(report, ", ".join(titles))
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise UserError(f"--port {port} cannot be had ({error.strerror}): expected a free one; leave --port out to get one") from None
        listening.listen()  # whoever reads the address may use it at once
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))

        def end(*_: object) -> None:
            server.should_exit = True

        # From before the address is known: a Ctrl-C that met asyncio half started would be lost, or leave its traceback.
        before = signal.signal(signal.SIGINT, end)
        try:
            say(f"http://{HOST}:{listening.getsockname()[1]} (Ctrl-C ends it)")
            server.run(sockets=[listening])
        finally:
            signal.signal(signal.SIGINT, before)
