"""LiveCodeBench's code generation: contest problems, as functions or as scripts that read standard input.

Tests and comparisons are those of lcb_runner/evaluation/testing_util.py. A script runs here as a script, where LiveCodeBench makes a function of it.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from azr_nemo.evaluation.code.comparison import equal
from azr_nemo.evaluation.code.contest_rows import ContestTest, packed, tests_of, unpacked
from azr_nemo.evaluation.code.in_jail import shortened
from azr_nemo.evaluation.code.preamble import PREAMBLE, preceded
from azr_nemo.evaluation.code.responses import code_in, defined, parses, stated
from azr_nemo.evaluation.code.rows import numbered
from azr_nemo.evaluation.code.solution import MEMORY_MB, RIGHT, calls_in_turn, in_turn, known, program, then
from azr_nemo.evaluation.code.streams import same_output
from azr_nemo.evaluation.suite import Grade, Group, Item, Tools
from azr_nemo.sandbox.executor import Limits
from azr_nemo.sandbox.script import Script, ScriptResult, ScriptStatus
from azr_nemo.tasks.fences import fence

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

    def judge(index: int, found: str) -> str:
        return RIGHT if equal(found, outputs[index]) else "wrong_value"

    return calls_in_turn(tools.executor, source, inputs, judge, TEST_S, TEST_S * len(tests))


def _feed(code: str, tests: list[ContestTest], tools: Tools) -> "Future[tuple[int, str]]":
    bounds = Limits(wall_s=TEST_S, cpu_s=TEST_S, memory_mb=MEMORY_MB)
    source = preceded(code)

    def start(first: int, last: int) -> "Future[list[ScriptResult]]":
        return _all([tools.executor.submit_script(_script(source, test, bounds)) for test in tests[first:last]])

    def judge(index: int, result: ScriptResult) -> str:
        if result.status is not ScriptStatus.FINISHED:
            return "timeout" if result.status is ScriptStatus.TIMEOUT else "output_too_large"
        if result.return_code != 0:
            return "error"
        return RIGHT if same_output(result.stdout, tests[index].output) else "wrong_value"

    return in_turn(len(tests), start, judge, TEST_S * len(tests), lambda result: result.wall_s)


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
