"""A rank that dies or hangs ends the whole run within a bound, with a sentence that names the rank and what it was doing.

Collectives alone cannot do this: they time out or break blindly, and a rank that waits inside one runs no Python. So every rank has two
threads. One tells the job's store what its rank is doing and reads what the others do; the other, which waits for nobody, judges: a process
of this machine that is gone, a rank that has fallen silent (stopped, or its machine lost), a rank that makes no progress while the others
wait for it. The verdict goes to every rank through the store. A rank whose main thread does not end by itself is ended by the judge.
"""

import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch.distributed as dist

EXIT_CODE = 2
SILENT_S = 600.0  # a live rank may hold Python's lock this long, in one write to a slow file system
GRACE_S = 5.0  # for a main thread that noticed the loss to end in an orderly way, before the judge does it
FAREWELL_S = 30.0  # for one that is on its way out
BETWEEN, WAITING = "its own work between commands", "waiting for a command"
# A rank whose innermost frames are of these waits for another rank.
COLLECTIVES = ("torch.distributed", "megatron.core.pipeline_parallel.p2p_communication", "megatron.core.tensor_parallel.mappings")
# On a GPU a collective returns at once, and the rank stands where it next needs the device: wherever numbers are read or kernels are queued. What these
# do takes no time of its own, so who stands in one of them waits for the device, and through it for another rank.
ON_DEVICE = ("torch", "megatron", "transformer_engine")


@dataclass(frozen=True)
class State:
    """What a rank says of itself. serial: commands begun, the same on all ranks; progress: within the command; waiting: for another rank."""

    phase: str = "starting"
    serial: int = 0
    progress: int = 0
    waiting: bool = False
    left: bool = False
    failure: str = ""


class Watchdog:
    """Watches the ranks of one job; idle in a job of one. limit_s: within it the run ends after a rank died or hung. on_device: ranks compute on GPUs."""

    def __init__(self, store: dist.Store, rank: int, ranks: int, limit_s: float, on_device: bool = False) -> None:
        self.rank, self.ranks = rank, ranks
        self._waits_in = COLLECTIVES + (ON_DEVICE if on_device else ())
        self.interval = min(1.0, limit_s / 40)
        self.patience_s = 0.85 * limit_s
        self.silent_s = min(SILENT_S, self.patience_s)
        self.grace_s = min(GRACE_S, limit_s / 10)
        self.verdict: str | None = None
        self._store = dist.PrefixStore("watchdog", store)
        self._state, self._command = State(), ""
        self._main = threading.main_thread().ident
        self._seen: dict[int, str] = {}
        self._answered = 0  # round trips to the store
        self._store_lost = self._suspicious = self._leaving = False
        self._neighbours: dict[int, tuple[int, str]] = {}  # rank: (process id, start time), of this machine
        self._gone: dict[int, int] = {}  # neighbours whose process is gone: round trips when that was noticed
        self._closed = threading.Event()
        if ranks == 1:
            self._closed.set()
            return
        host = socket.gethostname()
        self._store.set(f"process/{rank}", json.dumps([host, os.getpid(), _process(os.getpid())[0]]))
        for other, text in enumerate(self._store.multi_get([f"process/{other}" for other in range(ranks)])):
            its_host, pid, began = json.loads(text)
            if its_host == host and other != rank:
                self._neighbours[other] = pid, began
        for run in (self._talk, self._judge):
            threading.Thread(target=run, name=f"watchdog{run.__name__}", daemon=True).start()

    # What the main thread says.

    def begin(self, phase: str) -> None:
        """This rank begins a command that all ranks run."""
        self._command = phase
        self._say_later(phase=phase, serial=self._state.serial + 1, progress=0)
        self._say()

    def end(self) -> None:
        """It is done with the command; what follows concerns this rank alone."""
        self._say_later(phase=BETWEEN if self.rank == 0 else WAITING, progress=0, waiting=False)
        self._say()

    def wait_for_others(self, waiting: bool) -> None:
        """This rank is, or is no longer, waiting for another one outside of any collective."""
        self._say_later(waiting=waiting, progress=self._state.progress + 1)

    def advance(self) -> None:
        """It makes progress within the command: a sample ended, a micro-batch was done."""
        self._say_later(progress=self._state.progress + 1)

    def _say_later(self, **changed: Any) -> None:
        if not self._state.failure:
            self._state = replace(self._state, **changed)

    def fail(self, sentence: str) -> None:
        """This rank ends with an error: tells the others before the process goes."""
        self._leaving = True
        self._state = replace(self._state, failure=sentence)
        self._say()
        if self.rank == 0 and self.ranks > 1:
            time.sleep(3 * self.interval)  # the others read it from the store that this process may keep

    @property
    def failing(self) -> bool:
        return bool(self._state.failure)

    def close(self) -> None:
        """This rank leaves in good order; one that failed stays watched until its process has ended. Idempotent."""
        if not self._closed.is_set() and not self._state.failure:
            self._state = State(left=True)
            self._say()
            self._closed.set()

    def culprit(self, wait_s: float) -> str | None:
        """Who else failed, died or hangs; asked when a collective broke here. Waits at most wait_s seconds for the verdict."""
        self._suspicious = True
        deadline = time.monotonic() + wait_s
        while self.verdict is None and time.monotonic() < deadline and not self._closed.is_set():
            time.sleep(self.interval / 4)
        self._suspicious = False
        self._leaving = self.verdict is not None
        return self.verdict

    # The thread that talks to the store, and may hang with it.

    def _say(self) -> None:
        if self.ranks > 1:
            with contextlib.suppress(RuntimeError):  # a store that is gone is noticed by the thread that talks
                self._store.set(f"state/{self.rank}", json.dumps(self._state.__dict__))

    def _talk(self) -> None:
        try:
            store = self._store.clone()
            # Rank 0 hears all and the others hear rank 0, so that the store's load grows with the ranks and not with their square.
            heard = [rank for rank in (range(self.ranks) if self.rank == 0 else (0,)) if rank != self.rank]
            beat = 0
            while not self._closed.wait(self.interval):
                beat += 1
                state = self._state
                if not (state.left or state.failure):
                    waiting = state.waiting or _stands_in(sys._current_frames().get(self._main or 0), self._waits_in)
                    store.set(f"state/{self.rank}", json.dumps({**state.__dict__, "waiting": waiting, "beat": beat}))
                    self._seen[self.rank] = json.dumps({**state.__dict__, "waiting": waiting})
                for rank in {*heard, *self._neighbours}:
                    if store.check([f"state/{rank}"]):
                        self._seen[rank] = store.get(f"state/{rank}").decode()
                if self.verdict is None and store.check(["verdict"]):
                    self.verdict = store.get("verdict").decode()
                elif self.verdict is not None and not store.check(["verdict"]):
                    store.set("verdict", self.verdict)
                self._answered += 1
        except RuntimeError:
            self._store_lost = True

    # The thread that judges, and waits for nobody.

    def _judge(self) -> None:
        """Counts only time in which this process itself runs: a job that was suspended as a whole and goes on is not a hung one."""
        clock, before = 0.0, time.monotonic()
        heard: dict[int, tuple[str, float]] = {}
        moved: dict[int, tuple[tuple[str, int, int], float]] = {}
        answered, lost_at = (0, 0.0), math.inf
        while not self._closed.wait(self.interval):
            now = time.monotonic()
            clock, before = clock + min(now - before, 2 * self.interval), now
            if self._answered != answered[0]:
                answered = (self._answered, clock)
            if self._store_lost:
                lost_at = min(lost_at, clock)
            states = {}
            for rank, text in list(self._seen.items()):
                if heard.get(rank, ("", 0.0))[0] != text:
                    heard[rank] = (text, clock)
                state = states[rank] = _state(text)
                place = (state.phase, state.serial, state.progress)
                if moved.get(rank, ((), 0.0))[0] != place:
                    moved[rank] = (place, clock)
            silences = {rank: clock - at for rank, (_, at) in heard.items() if rank != self.rank}
            stuck = {rank: clock - at for rank, (_, at) in moved.items()}
            # A process that goes loses its connections a moment before it is gone itself, and it is the one to be named.
            lost = clock - lost_at > self.interval
            verdict = self.verdict or self._find(states, silences, stuck, math.inf if lost else clock - answered[1])
            if verdict:
                self._carry_out(verdict)
                return

    def _find(self, states: dict[int, State], silences: dict[int, float], stuck: dict[int, float], store_silence: float) -> str | None:
        """The sentence about the rank that failed, died, fell silent or hangs; None while all is well. Arguments: seconds."""
        for rank, state in sorted(states.items()):
            if state.failure and rank != self.rank:
                return state.failure
        for rank, (pid, start) in sorted(self._neighbours.items()):
            state = states.get(rank, State())
            if state.left or _process(pid)[0] == start:
                continue
            # It may have left word on its way out: what it said last must have been read.
            if self._answered >= self._gone.setdefault(rank, self._answered) + 2 or math.isinf(store_silence):
                return f"rank {rank} died in the phase `{self._phase_of(state)}` (process {pid} is gone): {_ADVICE}"
        bound = min(self.silent_s, 5 * self.interval + 2) if self._suspicious else self.silent_s
        if store_silence > bound:
            for rank, (pid, start) in sorted(self._neighbours.items()):
                if _process(pid) == (start, "T"):
                    phase = self._phase_of(states.get(rank, State()))
                    return f"rank {rank} is stopped in the phase `{phase}` (process {pid}), and with it the job's store: {_ADVICE}"
            what = "is gone" if math.isinf(store_silence) else f"has not answered for {store_silence:.0f} s"
            phase = self._state.phase
            return f"the job's store, which rank 0 or its launcher keeps, {what} in the phase `{phase}` of rank {self.rank}: {_ADVICE}"
        for rank, silence in sorted(silences.items()):
            # Of the others, rank 0 alone judges: who has no answer from the store cannot tell a silent rank from a silent store.
            if silence > bound and not states[rank].left and (self.rank == 0 or rank == 0) and store_silence < bound / 2:
                phase = self._phase_of(states[rank])
                return f"rank {rank} fell silent in the phase `{phase}` for {silence:.0f} s (stopped, or its machine is lost): {_ADVICE}"
        slow = {rank: states[rank] for rank, time_s in stuck.items() if time_s > self.patience_s and not states[rank].left}
        busy = {rank: state for rank, state in slow.items() if not state.waiting}
        if self.rank == 0 and slow and len(slow) == sum(not state.left for state in states.values()):
            # All stand still. Guilty are those who do not wait, or, where all wait for each other, those who came least far.
            least = min((state.serial, state.progress) for state in (busy or slow).values())
            guilty = [rank for rank, state in sorted((busy or slow).items()) if busy or (state.serial, state.progress) == least]
            who = " and ".join(f"rank {rank}" for rank in guilty)
            return f"{who} made no progress in the phase `{states[guilty[0]].phase}` for {self.patience_s:.0f} s (runtime.watchdog_s): {_ADVICE}"
        return None

    def _phase_of(self, state: State) -> str:
        """Of a rank that was heard last in this state: it may not have told of the command that all ranks are in."""
        if self._state.serial <= state.serial:
            return state.phase
        return self._state.phase if self._state.phase == self._command else f"{self._command}, or after it"

    def _carry_out(self, verdict: str) -> None:
        self.verdict = verdict
        deadline = time.monotonic() + self.grace_s
        farewell = time.monotonic() + FAREWELL_S
        while time.monotonic() < (farewell if self._leaving else deadline):
            if self._closed.wait(self.interval):
                return
        for pid, start in self._neighbours.values():
            if _process(pid) == (start, "T"):  # a stopped process cannot end itself
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        os.write(2, f"\nazr-nemo: {verdict}\n".encode())
        os._exit(EXIT_CODE)


_ADVICE = "look at its output; the same command resumes from the last checkpoint"


def _state(text: str) -> State:
    fields: dict[str, Any] = json.loads(text)
    fields.pop("beat", None)
    return State(**fields)


def _stands_in(frame: FrameType | None, modules: tuple[str, ...]) -> bool:
    """Whether one of the innermost frames is of these modules, or of modules below them."""
    for _ in range(3):
        if frame is None:
            return False
        name = str(frame.f_globals.get("__name__", ""))
        if any(name == module or name.startswith(f"{module}.") for module in modules):
            return True
        frame = frame.f_back
    return False


def _process(pid: int) -> tuple[str, str]:
    """When a process of this machine began, in the kernel's ticks, and its state's letter; empty for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return ("", "") if fields[0] in "ZX" else (fields[19], fields[0])
