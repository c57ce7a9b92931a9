"""Compares answers in jailed processes of their own, each comparison in a fork that is ended at the deadline.

The jail is the executor's (`sandbox.local`): a worker imports math-verify, gives up everything but reading its libraries, and forks a cell with
seccomp, limits of memory and CPU time, and no descriptor but the pipe for its verdict. What a model wrote is parsed only in there, so nothing it
could do there changes another answer's verdict.
"""

import importlib.util
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from azr_nemo.errors import UserError
from azr_nemo.evaluation.answer_tag import tagged_answer
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Status
from azr_nemo.sandbox.local.jail import Plan, Rung, plan
from azr_nemo.sandbox.local.process import Worker, WorkerLost
from azr_nemo.sandbox.local.seccomp import cell_filter

MODULES = ("antlr4", "mpmath", "sympy", "latex2sympy2_extended", "math_verify")
COMPARISON = "comparison"  # the module in HERE / "jailed"
PROGRAM = f"from {COMPARISON} import same\n\ndef f(gold, answer):\n    return same(gold, answer)\n"
HERE = Path(__file__).parent
WALL_PER_CPU = 4  # a comparison that waits for the CPU is not slow; wall time only ends one that sleeps
MEMORY_MB = 1024


class Verdict(StrEnum):
    """How a comparison ended; every one but RIGHT is a wrong answer, and its name is the grade's reason."""

    RIGHT = "right"
    WRONG = "wrong_value"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    ERROR = "error"


class MathGrader:
    """Compares answers by math-verify. Thread-safe. The workers end with this process, whatever ends it.

    deadline_s: CPU seconds of one comparison, as the original's 3 (wall time: four times that). workers: processes. queue: comparisons that may wait.
    Raises UserError when math-verify is not installed, and ExecutorUnavailable when this machine has no seccomp and `allow_unjailed` is false.
    """

    def __init__(self, deadline_s: float = 3.0, workers: int = 1, queue: int = 1024, allow_unjailed: bool = False):
        self._limits = Limits(wall_s=WALL_PER_CPU * deadline_s, cpu_s=deadline_s, memory_mb=MEMORY_MB)
        self._plan = jail_plan(allow_unjailed)
        self._room = threading.BoundedSemaphore(queue)
        self._lock = threading.Lock()
        self._running: set[Worker] = set()
        self._closing = False
        self._mine = threading.local()  # each thread's worker
        self._threads = ThreadPoolExecutor(workers, "maths")

    def submit(self, gold: str, answer: str) -> Future[Verdict]:
        """Queues a comparison. The future yields a verdict or raises ExecutorUnavailable. Blocks while the queue is full, except in a callback of one
        of its futures. Raises ExecutorUnavailable when the grader is closed."""
        future: Future[Verdict]
        if " ".join(gold.split()) == " ".join(answer.split()):
            future = Future()
            future.set_result(Verdict.RIGHT)
            return future
        waits = not getattr(self._mine, "serving", False)
        if waits:
            self._room.acquire()
        try:
            future = self._threads.submit(self._compare, gold, answer)
        except RuntimeError:
            if waits:
                self._room.release()
            raise ExecutorUnavailable("the maths grader is closed") from None
        if waits:
            future.add_done_callback(lambda _: self._room.release())
        return future

    def pids(self) -> list[int]:
        """The process ids of the workers that are running."""
        with self._lock:
            return [worker.pid for worker in self._running]

    def close(self) -> None:
        """Ends the workers. Comparisons without a verdict raise ExecutorUnavailable. Bounded in time; may be repeated."""
        with self._lock:
            self._closing = True
            for worker in self._running:
                worker.hang_up()
        self._threads.shutdown(wait=True)
        with self._lock:
            left, self._running = self._running, set()
        for worker in left:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _compare(self, gold: str, answer: str) -> Verdict:
        """In a thread of the pool, which lives as long as its worker must. A worker that dies is replaced and asked once more."""
        self._mine.serving = True
        for last in (False, True):
            worker = self._worker()
            try:
                (outcome,) = worker.run(PROGRAM, [f"{gold!r}, {answer!r}"], self._limits, runs=1)
                return _verdict(outcome)
            except WorkerLost:
                self._forget(worker)
                if last:
                    raise
        raise AssertionError

    def _worker(self) -> Worker:
        worker: Worker | None = getattr(self._mine, "worker", None)
        if worker is not None:
            return worker
        if self._closing:
            raise ExecutorUnavailable("the maths grader was closed before this answer was compared")
        worker = Worker(self._plan, hash_seed=1)
        with self._lock:
            self._running.add(worker)
            if self._closing:
                worker.hang_up()
        self._mine.worker = worker
        return worker

    def _forget(self, worker: Worker) -> None:
        self._mine.worker = None
        with self._lock:
            self._running.discard(worker)
        worker.close()


def jail_plan(allow_unjailed: bool = False) -> Plan:
    """How a worker that compares is started: seccomp, and landlock where the kernel has it. No change of user: what is imported late must stay readable.

    Raises UserError and ExecutorUnavailable as `MathGrader`.
    """
    for module in MODULES:
        if importlib.util.find_spec(module) is None:
            raise UserError(f"maths suites need {module}, which is not installed: pip install 'azr-nemo[eval]'")
    if not allow_unjailed:
        cell_filter()
    bare = plan(Rung.UNJAILED, MODULES)
    frame = bare.first_frame
    here = str(HERE / "jailed")
    return replace(bare, first_frame={**frame, "modules": [*MODULES, COMPARISON], "search": [*frame["search"], here]})


def _verdict(outcome: Outcome) -> Verdict:
    if outcome.ok:
        return Verdict.RIGHT if outcome.value == "True" else Verdict.WRONG
    return {Status.TIMEOUT: Verdict.TIMEOUT, Status.MEMORY: Verdict.MEMORY}.get(outcome.status, Verdict.ERROR)


BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
# What stands between the boxes of one answer: `3 and 8`, `1 paper and 2 bins`, `y = 3, z = 8`; a word of GOES_ON begins another step.
NOISE = r"[\s$,;&(){}]|\\[,;:! ()\[\]]|\\q?quad|\\text\b"
BETWEEN = re.compile(rf"(?:{NOISE})*|(?=.*(?:\b(?:and|or)\b|[,;]))(?:{NOISE}|[A-Za-z=]|_\{{?\w)*", re.DOTALL)
GOES_ON = re.compile(r"\b(?:so|hence|then|thus|therefore|finally|but|which|gives|get|wait|actually|answer|is)\b")
MOST_BETWEEN = 60  # characters


def final_answer(response: str) -> str:
    """The last <answer>, or the boxes inside it; without one the last boxes; without one the first \\[..\\]; else an empty text.

    An answer that is not closed counts up to the end. A last box whose braces do not close is no answer: it was cut off, and an earlier box is a step.
    Boxes with no more than `and` or a comma between them are one answer, joined by commas.
    """
    answer = tagged_answer(response)
    if answer is not None:
        return tidy(last_boxes(answer) if BOX.search(answer) else _unfenced(answer))
    if BOX.search(response):
        return tidy(last_boxes(response))
    start = response.find("\\[")
    end = response.find("\\]", start + 2)
    return tidy(response[start + 2 : end]) if 0 <= start < end else ""


def last_boxes(text: str) -> str:
    """What the last box holds, and those right before it; empty when the last does not close."""
    starts = [found.start() for found in BOX.finditer(text)]
    held = _box_at(text, starts[-1]) if starts else None
    if held is None:
        return ""
    parts, first = [held[0]], starts[-1]
    for start in reversed(starts[:-1]):
        before = _box_at(text, start, first)
        if before is None or first - before[1] > MOST_BETWEEN or not _continues(text[before[1] : first]):
            break
        parts.append(before[0])
        first = start
    return ", ".join(dict.fromkeys(reversed(parts)))


def _continues(between: str) -> bool:
    return BETWEEN.fullmatch(between) is not None and GOES_ON.search(between) is None and not re.search(r"\n\s*\n", between)


def last_box(text: str) -> str | None:
    """What the last \\boxed{..} or \\fbox{..} holds, by balanced braces; None when there is no box or it does not close. `\\boxed 5` holds 5."""
    starts = [found.start() for found in BOX.finditer(text)]
    held = _box_at(text, starts[-1]) if starts else None
    return held[0] if held else None


def _box_at(text: str, start: int, end: int | None = None) -> tuple[str, int] | None:
    """What the box that begins at `start` holds, and where it ends; None when it does not close before `end`."""
    end = len(text) if end is None else end
    match = BOX.match(text, start)
    position = match.end() if match else start
    while position < end and text[position].isspace():
        position += 1
    if text[position : position + 1] != "{":
        word = re.compile(r"[^\s$]+").match(text, position, end)
        return (word[0], word.end()) if word else None
    depth, escaped = 0, False
    for place in range(position, end):
        character = text[place]
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[position + 1 : place], place + 1
    return None


def tidy(text: str) -> str:
    """An answer without what does not belong to it: the delimiters around it, a full stop, runs of white space."""
    text = " ".join(text.split())
    shorter = True
    while shorter:
        shorter = False
        stripped = text.rstrip(" .")
        if stripped != text and ".." not in text[len(stripped) :] and not stripped.endswith("\\right"):
            text, shorter = stripped, True
        for left, right in DELIMITERS:
            if len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right):
                inside = text[len(left) : -len(right)]
                if left not in inside and right not in inside:  # `$1$, $2$` is not one formula
                    text, shorter = inside.strip(), True
    return text


def _unfenced(answer: str) -> str:
    """An answer without the Markdown fence around it."""
    found = re.fullmatch(r"\s*(```|~~~)[a-z]*\n(.*?)\n?\s*\1\s*", answer, re.DOTALL)
    return found[2] if found else answer
