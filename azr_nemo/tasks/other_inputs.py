"""Other inputs than a task's own, to tell whether it asks anything when its input is asked for.

A program whose result never changes (`return "Alice"`) is answered by any input. Constants of the input are changed and their types stay, so that what
ran once mostly runs again: emptied, made larger, negated, turned round. And a program that leaves its own output as it is (`sorted(x)`, `x.strip()`)
is answered by whoever writes the output down again, without a look at the program.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from azr_nemo.tasks.parsing import PARSE_ERRORS, NotLiteral, read_literal, same_literal
from azr_nemo.tasks.program import one_call
from azr_nemo.tasks.task import Calls, Refusal, Result, Task, TaskType

LEAST = 2  # other inputs that must run and give the same before anything is concluded


def _emptied(value: Any) -> Any:
    return type(value)()


def _larger(value: Any) -> Any:
    if not isinstance(value, str | bytes):
        return 3 * value + 7
    parts: list[Any] = [value, value[-1:], value[:1]]
    return type(value)().join(parts)


def _turned(value: Any) -> Any:
    return value[::-1] if isinstance(value, str | bytes) else -value - 1


def _small(value: Any) -> Any:
    return value[:1] if isinstance(value, str | bytes) else type(value)(1)


CHANGES: tuple[Callable[[Any], Any], ...] = (_larger, _turned, _small, _emptied)


class _Changed(ast.NodeTransformer):
    """Changes numbers and texts, and turns the elements of lists and tuples round."""

    def __init__(self, change: Callable[[Any], Any]):
        self.change = change

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        value = node.value
        if isinstance(value, bool):
            return ast.Constant(not value)
        return ast.Constant(self.change(value)) if isinstance(value, int | float | str | bytes) else node

    def visit_List(self, node: ast.List) -> ast.List:
        self.generic_visit(node)
        return ast.List(node.elts[::-1], node.ctx)


def other_inputs(text: str) -> list[str]:
    """Argument texts that differ from this one and from each other, in a fixed order; none where the text has nothing to change, as `lambda x: x`."""
    return list(dict.fromkeys(found for found in _others(text) if found != text))


def _others(text: str) -> Iterator[str]:
    for change in CHANGES:
        call = one_call(text)
        if isinstance(call, Refusal):
            return
        try:
            for part in (*call.args, *(keyword.value for keyword in call.keywords)):
                if any(isinstance(node, ast.Lambda) for node in ast.walk(part)):
                    return  # a function's constants say nothing of its shape
            yield ast.unparse(ast.fix_missing_locations(_Changed(change).visit(call)))[2:-1]
        except PARSE_ERRORS:  # a number that becomes too long to write
            continue


def variations(task: Task) -> Calls:
    """The calls that tell whether the task's program looks at its input."""
    return Calls(task.program, tuple(other_inputs(task.input)))


def ignores_input(task: Task, results: Sequence[Result]) -> bool:
    """Whether the results of `variations` are all the task's own output. An input that raises is an answer to nothing: then the input matters."""
    return len(results) >= LEAST and all(result.ok and same_literal(str(result.value), task.output) for result in results)


def echoes(task: Task) -> Calls:
    """The calls that have the task's output in the place of one argument, and the others as they are."""
    call = one_call(task.input)
    if isinstance(call, Refusal):
        return Calls(task.program, ())
    try:
        texts = [ast.unparse(argument) for argument in call.args]
        named = [f"{f'{keyword.arg}=' if keyword.arg else '**'}{ast.unparse(keyword.value)}" for keyword in call.keywords]
    except PARSE_ERRORS:  # a number that is too long to write
        return Calls(task.program, ())
    places = range(len(texts)) if not any(isinstance(argument, ast.Starred) for argument in call.args) else ()
    inputs = [", ".join([*texts[:place], task.output, *texts[place + 1 :], *named]) for place in places]
    return Calls(task.program, tuple(dict.fromkeys(inputs)))


def answered_by_its_output(task: Task, results: Sequence[Result]) -> bool:
    """Whether one of the results of `echoes` is the task's output."""
    return any(result.ok and same_literal(str(result.value), task.output) for result in results)


def is_echo(task: Task, answer: str) -> bool:
    """Whether an answer to an abduction task repeats the output that was shown."""
    return task.type is TaskType.ABDUCTION and repeats_output(answer, task.output)


def repeats_output(answer: str, output: str) -> bool:
    """Whether an argument of the answer is the output itself, of the same type too."""
    call = one_call(answer)
    if isinstance(call, Refusal):
        return False
    try:
        gold = repr(read_literal(output))
    except (NotLiteral, *PARSE_ERRORS):
        return False
    return any(_written(part) == gold for part in (*call.args, *(keyword.value for keyword in call.keywords)))


def _written(argument: ast.expr) -> str | None:
    """A literal as Python writes it, or None for what is none."""
    try:
        return repr(read_literal(ast.unparse(argument)))
    except (NotLiteral, *PARSE_ERRORS):
        return None
