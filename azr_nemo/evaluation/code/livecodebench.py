"""LiveCodeBench's code generation: contest problems, as functions or as scripts that read standard input.

Tests and comparisons are those of lcb_runner/evaluation/testing_util.py. A script runs here as a script, where LiveCodeBench makes a function of it.
"""

import base64
import json
import pickletools
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import astuple, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from azr_nemo.evaluation.code.code_blocks import code_in, defined, parses, stated
from azr_nemo.evaluation.code.dataset_rows import Row, numbered
from azr_nemo.evaluation.code.in_jail import literal, shortened
from azr_nemo.evaluation.code.same_output import equal
from azr_nemo.evaluation.code.solution import MEMORY_MB, RIGHT, calls_in_turn, in_turn, known, program, then
from azr_nemo.evaluation.suite import Grade, Group, Item, Tools
from azr_nemo.sandbox.executor import Limits, Script, ScriptResult, ScriptStatus
from azr_nemo.tasks.fences import fence

STRINGS = frozenset({"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
AROUND = frozenset({"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "STOP"})


@dataclass(frozen=True)
class ContestTest:
    """input: an argument text, or what a script reads. output: a value (`in_jail.literal`), or what a script should print."""

    input: str
    output: str


def tests_of(row: Row) -> tuple[str, list[ContestTest]]:
    """The name of the method that is tested, empty for scripts, and all tests, public ones first. Raises UserError naming the row."""
    try:
        metadata = json.loads(row.get("metadata", str) or "{}")
        method = metadata.get("func_name") or ""
        cases = [*_cases(row.get("public_test_cases", str)), *_cases(row.get("private_test_cases", str))]
        tests = [ContestTest(case["input"], case["output"]) for case in cases]
        functional = {case["testtype"] for case in cases}
        if functional != {"functional" if method else "stdin"} or not all(
            isinstance(part, str) for case in tests for part in astuple(case)
        ):
            raise ValueError(f"tests must be texts, and all {'functional' if method else 'stdin'}")
        return method, [_valued(test) for test in tests] if method else tests
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise row.error(f"its tests cannot be read ({error.__class__.__name__}: {str(error)[:100]})") from None


def packed(tests: list[ContestTest]) -> str:
    """Tests as base64 of compressed JSON: contests have inputs of megabytes."""
    return base64.b64encode(zlib.compress(json.dumps([astuple(test) for test in tests]).encode())).decode()


def unpacked(tests: str) -> list[ContestTest]:
    """What `packed` was given."""
    return [ContestTest(*pair) for pair in json.loads(zlib.decompress(base64.b64decode(tests)))]


def _cases(field: str) -> list[dict[str, str]]:
    """A field of tests: JSON, or base64 of compressed, pickled JSON."""
    if not field.lstrip().startswith("["):
        field = _pickled_text(zlib.decompress(base64.b64decode(field, validate=True)))
    return json.loads(field)


def _pickled_text(data: bytes) -> str:
    """The text in a pickle of one text. Its opcodes are read, nothing is unpickled: a pickle may run anything. Raises ValueError for any other."""
    found = []
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in STRINGS:
            found.append(argument)
        elif opcode.name not in AROUND:
            raise ValueError(f"the pickle holds {opcode.name}, expected one text")
    if len(found) != 1:
        raise ValueError(f"the pickle holds {len(found)} texts, expected one")
    return str(found[0])


def _valued(test: ContestTest) -> ContestTest:
    """A functional test: its input has one JSON value a line, one an argument; lines without any are none."""
    arguments = [literal(json.loads(line), argument=True) for line in test.input.split("\n") if line.strip()]
    return ContestTest(", ".join(arguments), literal(json.loads(test.output)))


STARRED = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json builtins typing".split()
PLAIN = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json".split()
# The jail has no /dev: what is opened by these names is the stream that the process has.
STREAMS = """
def open(file, *arguments, **named):
    streams = {"/dev/stdin": 0, "/proc/self/fd/0": 0, "/dev/fd/0": 0, "/dev/stdout": 1, "/dev/stderr": 2}
    number = streams.get(file) if isinstance(file, str) else None
    return io.open(file, *arguments, **named) if number is None else io.open(number, *arguments, **named, closefd=False)
"""
PREAMBLE = "\n".join(
    [
        *(f"from {name} import *" for name in STARRED),
        *(f"import {name}" for name in PLAIN),
        "sys.setrecursionlimit(50000)",
        "quit = exit",
        STREAMS,
    ]
)


def preceded(code: str) -> str:
    """A script that executes the preamble and then the code, in one namespace but each as it stands."""
    return f"{PREAMBLE}\nexec(compile({code!r}, 'main.py', 'exec', dont_inherit=True))\n"


def same_output(printed: str, expected: str) -> bool:
    """Line by line without the space around them: equal, or equal numbers throughout, as LiveCodeBench has it (`grade_stdio`)."""
    ours, theirs = _lines(printed), _lines(expected)
    return len(ours) == len(theirs) and all(one == other or _same_numbers(one, other) for one, other in zip(ours, theirs, strict=True))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_numbers(one: str, other: str) -> bool:
    """Decimals, as floats would find 50000000000000000 and 50000000000000001 equal."""
    try:
        return [Decimal(word) for word in one.split()] == [Decimal(word) for word in other.split()]
    except InvalidOperation:
        return False


TEST_S = 6.0
WITH_STARTER = "Complete this starter code, and wrap your final answer in a python code block:"
WITHOUT_STARTER = (
    "Read the inputs from standard input, solve the problem and write the answer to standard output (do not directly test on the sample inputs). "
    "Wrap your final answer in a python code block:"
)


@dataclass
class LiveCodeBenchSuite:
    """reference of an item: method (of class Solution; empty for scripts), tests (`contest_rows.packed`).

    Compressed tests are most of the file, gigabytes of it: an item holds them as they come and they are unpacked to be run.
    """

    name: str = "livecodebench"
    group: Group = "code"
    size: int = 880
    template: str = "r1"
    max_tokens: int = 8096
    origin: str = (
        "download test.jsonl, test2.jsonl, ..., test5.jsonl (release_v5) from huggingface.co/datasets/livecodebench/code_generation_lite"
    )

    def convert(self, rows: Iterable[Mapping[str, Any]], tools: Tools) -> list[Item]:
        """See `Suite.convert`."""
        items = []
        for row, name in numbered(self.name, rows, "question_id"):
            starter, (method, tests) = row.get("starter_code", str), tests_of(row)
            items.append(Item(name, _question(row.get("question_content", str), starter), {"method": method, "tests": packed(tests)}))
        return items

    def submit(self, item: Item, response: str, tools: Tools) -> "Future[Grade]":
        code = code_in(response)
        if not parses(code):
            return known(Grade(False, "syntax", code))
        tests, method = unpacked(item.reference["tests"]), item.reference["method"]
        run = _call(code, method, tests, tools) if method else _feed(code, tests, tools)
        return then(run, lambda end: Grade(end[1] == RIGHT, end[1], code))

    def ideal(self, item: Item) -> str:
        """The public file has no solutions: this one knows the tests by heart."""
        tests, method = unpacked(item.reference["tests"]), item.reference["method"]
        table = "\n".join(f"    {_key(test.input, method)}: {_value(test.output, method)}," for test in tests)
        table = f"answers = {{\n{table}\n}}"
        if method:
            body = f"class Solution:\n    def {method}(self, *arguments):\n        return answers[repr(arguments)]"
        else:
            body = "print(answers[sys.stdin.read()])"
        return stated(f"import sys\n\n{table}\n\n{body}")

    def wrong(self, item: Item) -> str:
        method = item.reference["method"]
        return stated(f"class Solution:\n    def {method}(self, *arguments):\n        return 'wrong'" if method else "print('wrong')")


def _call(code: str, method: str, tests: list[ContestTest], tools: Tools) -> "Future[tuple[int, str]]":
    path = f"Solution.{method}" if "Solution" in defined(code) else method
    source = program("graded", code, path, "row", PREAMBLE)
    inputs, outputs = [test.input for test in tests], [shortened(test.output) for test in tests]

    def grade(index: int, found: str) -> str:
        return RIGHT if equal(found, outputs[index]) else "wrong_value"

    return calls_in_turn(tools.executor, source, inputs, grade, TEST_S, TEST_S * len(tests))


def _feed(code: str, tests: list[ContestTest], tools: Tools) -> "Future[tuple[int, str]]":
    bounds = Limits(wall_s=TEST_S, cpu_s=TEST_S, memory_mb=MEMORY_MB)
    source = preceded(code)

    def start(first: int, last: int) -> "Future[list[ScriptResult]]":
        return _all([tools.executor.submit_script(_script(source, test, bounds)) for test in tests[first:last]])

    def grade(index: int, result: ScriptResult) -> str:
        if result.status is not ScriptStatus.FINISHED:
            return "timeout" if result.status is ScriptStatus.TIMEOUT else "output_too_large"
        if result.return_code != 0:
            return "error"
        return RIGHT if same_output(result.stdout, tests[index].output) else "wrong_value"

    return in_turn(len(tests), start, grade, TEST_S * len(tests), lambda result: result.wall_s)


def _script(source: str, test: ContestTest, bounds: Limits) -> Script:
    return Script(source, test.input, bounds, stream_bytes=(1 << 20) + 8 * len(test.output))


def _all(futures: "list[Future[ScriptResult]]") -> "Future[list[ScriptResult]]":
    """One future of all their results, in order; raises what the first that fails raises."""
    results: list[ScriptResult] = []
    answer: Future[list[ScriptResult]] = Future()
    answer.set_running_or_notify_cancel()

    def wait() -> None:
        if len(results) == len(futures):
            answer.set_result(results)
        else:
            futures[len(results)].add_done_callback(done)

    def done(future: "Future[ScriptResult]") -> None:
        try:
            results.append(future.result())
        except BaseException as error:  # belongs to the one who waits
            answer.set_exception(error)
            return
        wait()

    wait()
    return answer


def _question(content: str, starter: str) -> str:
    if starter:
        return f"{content.strip()}\n\n{WITH_STARTER}\n{fence('python', starter)}"
    return f"{content.strip()}\n\n{WITHOUT_STARTER}\n{fence('python', '# YOUR CODE HERE')}"


def _key(given: str, method: str) -> str:
    return f"repr(({given},))" if method else repr(given)


def _value(output: str, method: str) -> str:
    return output if method else repr(output)


LIVECODEBENCH = LiveCodeBenchSuite()
