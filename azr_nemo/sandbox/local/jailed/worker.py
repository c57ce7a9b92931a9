"""The worker: a fork server that was locked in once and forks a cell for every request.

It speaks length-prefixed JSON with the trainer over one socket. The first frame says how to lock itself in; then every frame is a request and is
answered by one frame with a result per input. It ends when the trainer closes the socket or dies.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

from . import child, landlock, namespaces
from .cell import address_space, fork
from .script import run_script
from .supervise import run_request

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
STACK_BYTES = 8 << 20
Spawn = Callable[[dict[str, Any], int], tuple[int, int]]

_libc = ctypes.CDLL(None, use_errno=True)


class Control:
    """The socket to the trainer. `receive` and `next` end the worker when the trainer is gone."""

    def __init__(self, fd: int):
        self.socket = socket.socket(fileno=os.dup(fd))  # the lowest free number, wherever the trainer's lay
        os.close(fd)
        self.fd = self.socket.fileno()
        self.received = bytearray()

    def receive(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            os._exit(0)  # forks die with the worker
        self.received += data

    def next(self) -> dict[str, Any]:
        while len(self.received) < 4 or len(self.received) < 4 + struct.unpack_from("<I", self.received)[0]:
            self.receive()
        (length,) = struct.unpack_from("<I", self.received)
        frame = json.loads(bytes(self.received[4 : 4 + length]))
        del self.received[: 4 + length]
        return frame

    def send(self, frame: dict[str, Any], tail: bytes = b"") -> None:
        """One answer: the lengths of its two parts, JSON, and bytes that are passed on unread."""
        body = json.dumps(frame).encode()
        self.socket.sendall(struct.pack("<II", len(body), len(tail)) + body + tail)


def main(fd: int) -> None:
    """Serves the trainer at the other end of the socket `fd` until it is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    as_in_a_shell()
    control = Control(fd)
    plan = control.next()
    try:
        version = lock_in(plan, control.fd)
    except Exception:
        control.send({"error": traceback.format_exc(limit=0).strip().splitlines()[-1]})
        return
    os.dup2(1, 2)  # nobody reads on the other side from now on
    control.send({"landlock": version})
    seccomp, for_scripts = (child.Filter(bytes.fromhex(plan[name])) if plan[name] else None for name in ("filter", "script_filter"))
    base = address_space()

    def spawn(request: dict[str, Any], first: int) -> tuple[int, int]:
        return fork(request, first, control, base, seccomp)

    child.rehearse()
    gc.collect()
    gc.freeze()
    while True:
        serve(control.next(), control, spawn, base, for_scripts)


def as_in_a_shell() -> None:
    """Signals as a program finds them in a new interpreter: what the trainer was started under (nohup, a background job) is not handed on."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def serve(request: dict[str, Any], control: Control, spawn: Spawn, base: int, for_scripts: child.Filter | None) -> None:
    """Answers one request. Nothing of it stays: what is kept here, the next fork would find in its memory."""
    number = request["id"]
    if "script" in request:
        control.send({"id": number, "result": run_script(request, control, base, for_scripts)})
        return
    segments = run_request(request, spawn, control)
    told = [(len(segment.frames), *segment[1:]) for segment in segments]
    control.send({"id": number, "segments": told}, b"".join(segment.frames for segment in segments))


def lock_in(plan: dict[str, Any], control_fd: int) -> int:
    """Preloads modules while they can be read, then gives up everything else. plan: `preload` (modules of the standard library), `modules` (others),
    `search` (folders where those are found), `readable` (folders and files), `namespaces`, `nobody`, `landlock` (bools), `filter` and `script_filter`
    (hex of BPF programs, or ""). Returns landlock's version, 0 without it. Raises OSError, and ImportError for `modules`."""
    for name in plan["preload"]:
        try:
            importlib.import_module(name)
        except ImportError:  # this Python was built without it
            continue
    sys.path += plan["search"]
    for name in plan["modules"]:
        importlib.import_module(name)
    os.environ.clear()
    if plan["namespaces"]:
        namespaces.enter_namespaces(plan["readable"], control_fd)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    version = landlock.restrict_to_reading(plan["readable"]) if plan["landlock"] else 0
    if plan["nobody"]:
        namespaces.become_nobody()
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user cleared it
    namespaces.drop_capabilities()
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # no ptrace by processes of the same user
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = STACK_BYTES if hard == resource.RLIM_INFINITY else min(hard, STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))
    return version
