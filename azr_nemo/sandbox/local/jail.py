"""The ladder: which isolation this machine offers, from the strongest rung down, found by locking a worker in and having it try to get out."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome
from azr_nemo.sandbox.local.jailed import landlock, namespaces
from azr_nemo.sandbox.local.process import Worker
from azr_nemo.sandbox.local.seccomp import cell_filter

HERE = Path(__file__).parent
NOBODY = 65534
CAP_SETGID_AND_SETUID = 1 << 6 | 1 << 7

# What programs import, and what reports for them; a fork costs about a tenth of a millisecond per further megabyte. zlib because it needs a library
# of the system's, which cannot be read from inside.
PRELOAD = [
    "abc", "array", "ast", "bisect", "cmath", "collections", "collections.abc", "copy", "dataclasses", "datetime", "decimal", "enum",
    "fractions", "functools", "heapq", "io", "itertools", "json", "math", "numbers", "operator", "random", "re", "statistics", "string",
    "textwrap", "time", "types", "typing", "unicodedata", "zlib", "zoneinfo",
]  # fmt: skip
# Where the folder cannot be read after a change of user, also what programs now and then import late.
PRELOAD_WIDE = [
    "_pylong", "asyncio", "base64", "binascii", "calendar", "concurrent.futures.thread", "contextlib", "csv", "difflib", "graphlib", "hashlib",
    "hmac", "inspect", "logging", "pickle", "pprint", "queue", "reprlib", "sched", "secrets", "shlex", "stringprep", "struct", "threading",
    "timeit", "traceback", "unittest", "uuid",
]  # fmt: skip


class Rung(StrEnum):
    BUBBLEWRAP = "bubblewrap"  # A: bwrap, landlock, seccomp
    NAMESPACES = "namespaces"  # B: namespaces of our own, landlock, seccomp
    LANDLOCK = "landlock"  # C: landlock, seccomp; user nobody when started by a root who can change to it
    UNJAILED = "unjailed"  # whatever of seccomp and landlock there is; only on demand


LADDER = (Rung.BUBBLEWRAP, Rung.NAMESPACES, Rung.LANDLOCK)
LETTERS = {Rung.BUBBLEWRAP: "A", Rung.NAMESPACES: "B", Rung.LANDLOCK: "C"}

ESCAPES = """
import os, socket

def escapes(name, attempt):
    try:
        attempt()
    except (OSError, ImportError):
        return []
    return [name]

def f(secret, parent_readable):
    return (
        escapes("read a file", lambda: open(secret).read(1))
        + escapes("write a file", lambda: open("/tmp/azr-escape", "w"))
        + escapes("list the folder of users", lambda: os.listdir("/home"))
        + escapes("open a socket", lambda: socket.socket())
        + escapes("signal the worker", lambda: os.kill(os.getppid(), 0))
        + escapes("start a process", lambda: os.fork() or os._exit(0))
    )
"""


@dataclass(frozen=True)
class Plan:
    """How to start a worker on a rung: the command before the interpreter, and the first frame that it is sent."""

    rung: Rung
    command: tuple[str, ...]
    first_frame: dict[str, Any]

    def describe(self) -> str:
        """The rung in words, and what this machine lacks."""
        if self.rung is Rung.UNJAILED:
            have = [
                name for name, present in (("seccomp", self.first_frame["filter"]), ("landlock", self.first_frame["landlock"])) if present
            ]
            return f"NOT JAILED (executor.allow_unjailed; {' and '.join(have) or 'resource limits'} only)"
        landlock_part = f"landlock {landlock.abi()}" if self.first_frame["landlock"] else "no landlock in this kernel"
        user = ", user nobody" if self.first_frame["nobody"] else ""
        first = "" if self.rung is Rung.LANDLOCK else f"{self.rung}, "
        return f"rung {LETTERS[self.rung]} ({first}{landlock_part}, seccomp{user})"


@dataclass(frozen=True)
class Probe:
    """Whether a rung holds on this machine; else why not, in one sentence."""

    rung: Rung
    ok: bool
    reason: str


def interpreter() -> str:
    """The real path of this Python, so that no virtual environment has to be visible in a jail."""
    return os.path.realpath(sys.executable)


def standard_library() -> list[str]:
    """The folders of the standard library that exist, extension modules included; not a virtual environment's."""
    base = {"installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    found = {os.path.realpath(sysconfig.get_path(name, vars=base)) for name in ("stdlib", "platstdlib")}
    return sorted(folder for folder in found if os.path.isdir(folder))


def time_zones() -> str:
    """The folder of the time zones' rules: the system's, else that of the package tzdata; empty where there is neither."""
    package = importlib.util.find_spec("tzdata")
    for folder in (*zoneinfo.TZPATH, *(f"{place}/zoneinfo" for place in (package and package.submodule_search_locations) or ())):
        if os.path.isdir(folder):
            return os.path.realpath(folder)
    return ""


def module_paths(module: str) -> list[str]:
    """What must be readable for an installed module: its folder and the shared libraries that wheels put beside it, or its file.

    Raises ExecutorUnavailable when it is not installed.
    """
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    found = (next(iter(spec.submodule_search_locations or ()), spec.origin) if spec else None) or ""
    if not os.path.exists(found):
        raise ExecutorUnavailable(
            f"executor.modules: {module} is not an installed package; install it where azr-nemo runs, or leave it out"
        )
    path = os.path.realpath(found)
    return [path] + [libraries for libraries in (f"{path}.libs",) if os.path.isdir(libraries)]


def plan(rung: Rung, modules: Sequence[str] = ()) -> Plan:
    """How to start a worker on this rung. modules: what is installed beside the standard library and programs may import, each by name.

    Raises ExecutorUnavailable when a part that it needs is missing.
    """
    have_landlock = landlock.abi() > 0
    installed = [path for module in modules for path in module_paths(module)]
    software, zones = standard_library() + installed, time_zones()
    readable = software + [zones] * bool(zones)
    nobody = rung is Rung.LANDLOCK and _may_become_nobody()
    if rung is Rung.UNJAILED:
        try:
            bpf, script_bpf = cell_filter(), cell_filter(script=True)
        except ExecutorUnavailable:
            bpf = script_bpf = b""
    else:
        bpf, script_bpf = cell_filter(), cell_filter(script=True)
    if rung is Rung.LANDLOCK and not have_landlock:
        raise ExecutorUnavailable("this kernel has no landlock (Linux 5.13 or newer with landlock among its security modules)")
    first_frame = {
        "preload": PRELOAD + (PRELOAD_WIDE + _codecs() if nobody and not all(map(_everybody_may_read, software)) else []),
        "modules": list(modules),
        "search": sorted({os.path.dirname(path) for path in installed}),
        "readable": readable,
        "time_zones": zones,
        "namespaces": rung is Rung.NAMESPACES,
        "nobody": nobody,
        "landlock": have_landlock,
        "filter": bpf.hex(),
        "script_filter": script_bpf.hex(),
    }
    return Plan(rung, tuple(_bubblewrap(readable)) if rung is Rung.BUBBLEWRAP else (), first_frame)


def probe_rung(rung: Rung) -> Probe:
    """Locks a worker in on this rung and has a program try to get out. Bounded by the worker's own time limits."""
    try:
        with Worker(plan(rung), hash_seed=1) as worker:
            (outcome,) = worker.run(ESCAPES, [f"{str(Path(__file__))!r}, None"], Limits(wall_s=10.0), runs=1)
    except ExecutorUnavailable as error:
        return Probe(rung, False, str(error))
    return Probe(rung, *_judge(outcome))


def _judge(outcome: Outcome) -> tuple[bool, str]:
    if outcome.value == "[]":
        return True, "holds"
    return (
        False,
        f"a program inside could do this: {outcome.value}"
        if outcome.ok
        else f"the trial program ended with {outcome.status}: {outcome.error}",
    )


def probe() -> list[Probe]:
    """Every rung of the ladder, strongest first, tried on this machine."""
    return [probe_rung(rung) for rung in LADDER]


def choose(allow_unjailed: bool, modules: Sequence[str] = ()) -> Plan:
    """The strongest rung that holds here. modules: as for `plan`. Raises ExecutorUnavailable with the reasons when none does and `allow_unjailed` is
    false."""
    reasons = []
    for rung in LADDER:
        tried = probe_rung(rung)
        if tried.ok:
            return plan(rung, modules)
        reasons.append(f"{rung}: {tried.reason}")
    if allow_unjailed:
        return plan(Rung.UNJAILED, modules)
    raise ExecutorUnavailable(
        f"no jail for the programs a model writes holds on this machine ({'; '.join(reasons)}); "
        "provide one of these, or accept an open sandbox with executor.allow_unjailed=true"
    )


def _bubblewrap(readable: list[str]) -> list[str]:
    program = shutil.which("bwrap")
    if program is None:
        raise ExecutorUnavailable("bwrap is not installed (Debian and Ubuntu: apt-get install bubblewrap)")
    command = [
        program, "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session",
        "--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL", *(["--hostname", namespaces.HOST] if _may_be_named(program) else []),
    ]  # fmt: skip
    system = ["/usr", "/lib", "/lib64", "/etc/ld.so.cache"]
    libraries = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder.startswith("/")]
    for path in [*system, sys.base_prefix, interpreter(), *readable, *libraries, str(HERE / "jailed")]:
        command += ["--ro-bind-try", path, path]
    return [*command, "--remount-ro", "/", "--chdir", "/", "--"]


@cache
def _may_be_named(bubblewrap: str) -> bool:
    """Whether a sandbox may have a name of its own, else the container's is known inside: podman's default filter refuses it without CAP_SYS_ADMIN."""
    trial = [bubblewrap, "--unshare-all", "--as-pid-1", "--hostname", namespaces.HOST, "--ro-bind", "/", "/", "--", bubblewrap, "--version"]
    try:
        return subprocess.run(trial, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _may_become_nobody() -> bool:
    """Whether this is a root who can change to another user: one without capabilities, or in a user namespace of one user alone, cannot."""
    if os.getuid() != 0:
        return False
    proc = Path("/proc/self")
    try:
        (held,) = re.findall(r"^CapEff:\s*(\w+)$", (proc / "status").read_text(encoding="utf-8"), re.MULTILINE)
        known = [line.split() for name in ("uid_map", "gid_map") for line in (proc / name).read_text(encoding="utf-8").splitlines()]
        groups = (proc / "setgroups").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return True
    mapped = sum(int(first) <= NOBODY < int(first) + int(count) for first, _, count in known)
    return int(held, 16) & CAP_SETGID_AND_SETUID == CAP_SETGID_AND_SETUID and mapped == 2 and groups == "allow"


def _everybody_may_read(folder: str) -> bool:
    here = Path(folder)
    return all(path.stat().st_mode & stat.S_IXOTH for path in (here, *here.parents))


def _codecs() -> list[str]:
    import encodings

    names = (name.removesuffix(".py") for name in sorted(os.listdir(os.path.dirname(encodings.__file__))) if name.endswith(".py"))
    return [f"encodings.{name}" for name in names if name not in ("__init__", "mbcs", "oem")]
