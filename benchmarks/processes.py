"""What a tree of processes uses, read from /proc: CPU time, memory, and who is in it."""

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
LISTENING = "0A"
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """cpu_s: CPU seconds, those of reaped children included. resident: bytes of memory, shared pages in full."""

    pid: int
    parent: int
    state: str
    cpu_s: float
    resident: int


def tree(roots: Iterable[int]) -> list[Process]:
    """The processes `roots` and all their descendants that are there now."""
    children: dict[int, list[Process]] = {}
    found = {process.pid: process for process in map(_read, Path("/proc").glob("[0-9]*/stat")) if process}
    for process in found.values():
        children.setdefault(process.parent, []).append(process)
    members = {pid: found[pid] for pid in roots if pid in found}
    waiting = list(members)
    while waiting:
        for process in children.get(waiting.pop(), []):
            if process.pid not in members:
                members[process.pid] = process
                waiting.append(process.pid)
    return list(members.values())


def adopt_orphans() -> None:
    """What loses its parent becomes a child of this process and stays in its tree, with its CPU time, when it ends: the worker inside bubblewrap
    outlives the outer process of that for a moment."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cpu_seconds_below(others: Iterable[int]) -> float:
    """CPU time of all that this process started, reaped or not, and of the trees of `others`."""
    me, reaped = os.getpid(), os.times()
    return sum(process.cpu_s for process in tree([me, *others]) if process.pid != me) + reaped.children_user + reaped.children_system


def listeners(port: int) -> list[int]:
    """The processes of this machine that listen on a TCP port, as far as this user may see them."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            rows = [line.split() for line in Path(table).read_text(encoding="utf-8").splitlines()[1:]]
            sockets |= {f"socket:[{row[9]}]" for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port}
    return sorted({int(fd.parts[2]) for fd in Path("/proc").glob("[0-9]*/fd/*") if _target(fd) in sockets})


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:  # gone, or another user's
        return ""


def _read(path: Path) -> Process | None:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:  # it just ended
        return None
    fields = text[text.rindex(")") + 2 :].split()  # from field 3 of proc(5) on; the name before may hold anything
    cpu_s = sum(map(int, fields[11:15])) / TICKS
    return Process(int(text.split(" ", 1)[0]), int(fields[1]), fields[0], cpu_s, int(fields[21]) * PAGE)
