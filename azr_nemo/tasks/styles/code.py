"""Code that the model goes on with, for models of code that were never shown a task: functions, calls, asserts.

A proposer goes on with a file of puzzle functions, each with one call; a solver with `assert f(x) ==` or `assert y ==`, or with a function whose checks
stand above it as comments. Every prompt ends in a word or a sign and every answer begins with a space, which is where every tokenizer begins a token:
a prompt that ends inside what is one token, as `f(` does where `('` is one, costs a third of the right answers. Stop strings end an answer, so
nothing after it is trained on.
"""

import ast
import re
import string

from azr_nemo.tasks.fences import fence, tagged
from azr_nemo.tasks.marked import template
from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed
from azr_nemo.tasks.prompting import render
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal

# A function ends where a line is not indented, but for a bracket that closes what was opened before it.
UNINDENTED = tuple(f"\n{sign}" for sign in sorted(set(string.printable) - set(string.whitespace) - set(")]}")))
NEXT = "\n\n#"  # what follows a whole function or call in such a file: the comment above the next
CASE = "y"  # proposed inputs are the calls of y1 = f(...), y2 = f(...)
# Lines above what a solver goes on with, of which `PromptOptions.wording` says one: the first, unless `selfplay.wordings` asks for more.
WORDINGS = {
    "solve_deduction": ("", "# what f returns here\n", "# a test of f\n", "# the result of this call\n"),
    "solve_abduction": (
        "# an input that gives this output\n",
        "# a call of f that returns this\n",
        "# a test of f\n",
        "# which call of f has this result\n",
    ),
    "solve_induction": (
        "# A short function that gives these outputs:\n",
        "# A short function of which the lines above are true:\n",
        "# The function f, so that all of these checks pass:\n",
        "# What computes these outputs, in a few lines:\n",
    ),
}
PREFILL = {"propose_triplet": "def", "solve_induction": "def", "propose_induction": f"{CASE}1 ="}


class Code:
    """Helpers and imports before `f` cannot be said: the prompt has begun the function."""

    wordings = 4

    def prompt(self, name: str, options: PromptOptions, **values: object) -> PromptText:
        if name in WORDINGS:
            values["above"] = template(WORDINGS[name][options.wording])
        text = render(f"{name}.code.j2", options=options, **values)
        return PromptText(text, template(PREFILL.get(name, "")), _stop(name, options.pairs))

    def read(self, name: str, text: str) -> str | Refusal:
        match name:
            case "solve_deduction":
                return fence("output", asserted(text))
            case "solve_abduction":
                return _input(call_arguments(asserted(text), compared=False))
            case "solve_induction":
                return fence("python", unindented_cut(text))
            case "propose_triplet":
                return proposed(text)
        calls = [call_arguments(line.partition("=")[2]) for line in text.split("\n") if re.match(rf"{CASE}\d+ *=", line)]
        return "".join(fence("input", call) for call in calls if call is not None)

    def write(self, name: str, body: str, options: PromptOptions) -> str:
        programs, inputs, outputs = (tagged(body, tag) for tag in ("python", "input", "output"))
        match name:
            case "solve_deduction":
                said = f" {outputs[0]}\n"
            case "solve_abduction":
                said = f" f({inputs[0]})\n"
            case "solve_induction":
                said = f"{_begun(programs[0])}{NEXT}"
            case "propose_triplet":
                said = f"{_begun(programs[0])}\n\nf({inputs[0]}){NEXT}"
            case _:
                said = "".join(f" f({text})\n{CASE}{number}{' =' * (number <= len(inputs))}" for number, text in enumerate(inputs, 2))
        whole = PREFILL.get(name, "") + said
        if min(said.find(stop) + len(stop) for stop in _stop(name, options.pairs) if stop in said) < len(said):
            raise ValueError(f"this text cannot be written in the code style: it would end before {said[-20:]!r}")
        if (read := self.read(name, whole)) != "".join(fence(tag, text) for tag, text in _blocks(body)):
            raise ValueError(f"this text cannot be written in the code style: it would be read as {read!r}")
        return said


def _blocks(body: str) -> list[tuple[str, str]]:
    """The fenced blocks of a body as they are read back."""
    return [(tag, text.strip("\n")) for tag in ("python", "input", "output", "message") for text in tagged(body, tag)]


def _stop(name: str, pairs: int) -> tuple[str, ...]:
    if name in ("solve_deduction", "solve_abduction"):
        return ("\n", "  #")  # a comment comes too late to help
    if name == "solve_induction":
        return UNINDENTED
    going_on = "\nf" if name == "propose_triplet" else f"\n{CASE}"
    stop = tuple(text for text in UNINDENTED if text != going_on)
    return stop if name == "propose_triplet" else (*stop, f"\n{CASE}{pairs + 1}")


def _begun(program: str) -> str:
    """What is left to write of a program whose first word the prompt has written."""
    text = program.strip("\n")
    if not text.startswith("def f("):
        raise ValueError("this program begins with something else than f and cannot be written in the code style")
    return text.removeprefix("def")


def unindented_cut(text: str) -> str:
    """The text before its first line that is not indented; the first line of all may be."""
    found = re.search(r"\n(?=[^\s)\]}])", text)
    return (text[: found.start()] if found else text).strip("\n")


def proposed(text: str) -> str | Refusal:
    """A function and the call after it, as fenced blocks."""
    program = unindented_cut(text)
    rest = text[text.index(program) + len(program) :].strip("\n") if program else ""
    lines = rest.split("\n")
    # A call may go over several lines; more than these are no puzzle's.
    for count in range(1, min(len(lines), 20) + 1):
        if (arguments := call_arguments("\n".join(lines[:count]))) is not None:
            return fence("python", program) + fence("input", arguments)
    return Refusal("format", "the function is not followed by a call of f")


def _input(arguments: str | None) -> str | Refusal:
    return Refusal("format", "the answer is not a call of f") if arguments is None else fence("input", arguments)


def asserted(text: str) -> str:
    """What the first line of the text says after `assert x ==`, without a message or a comment; the line itself where that is no such statement."""
    line = text.split("\n")[0].strip()
    source = f"assert 0 == {line}"
    try:
        statement, *others = parsed(source).body
        if not others and isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare) and len(statement.test.ops) == 1:
            return ast.get_source_segment(source, statement.test.comparators[0]) or line
    except PARSE_ERRORS:
        pass
    return line


def call_arguments(text: str, compared: bool = True) -> str | None:
    """The argument text of `f(...)`, which may have a comment and, where that is allowed, be compared with something; None where the text is
    something else."""
    source = text.strip()
    try:
        node = parsed(source, "eval").body
    except PARSE_ERRORS:
        return None
    call = node.left if compared and isinstance(node, ast.Compare) else node
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "f"):
        return None
    said = ast.get_source_segment(source, call) or ""
    return said[said.index("(") + 1 : -1].strip()
