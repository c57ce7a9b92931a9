"""Reading code out of a response, and stating it in one."""

import ast

from azr_nemo.evaluation.answer_tag import tagged_answer
from azr_nemo.tasks.fences import fence, fences
from azr_nemo.tasks.parsing import PARSE_ERRORS, parsed


def answer_in(response: str) -> str:
    """What the response's <answer> holds; the whole response when it has none."""
    answer = tagged_answer(response)
    return response if answer is None else answer


def code_in(response: str) -> str:
    """The code that a response states: in its answer (`answer_in`) the last closed `python` block, else the last block, else the raw text.

    As in the original's LiveCodeBench run; but a block ends only at a line of its own ticks, so code that holds fences is whole, and an answer ends
    at </answer>. A block that was never closed counts when there is no other.
    """
    answer = answer_in(response)
    blocks = fences(answer)
    closed = [block for block in blocks if block.closed]
    chosen = [block for block in closed if block.tag == "python"] or closed or blocks
    return chosen[-1].text if chosen else answer


def parses(code: str) -> bool:
    """Whether this is Python at all. Nothing is run."""
    try:
        parsed(code)
    except PARSE_ERRORS:
        return False
    return True


def defined(code: str) -> set[str]:
    """The names that a program's top level binds by a definition, an assignment or an import; none when it does not parse."""
    try:
        tree = parsed(code)
    except PARSE_ERRORS:
        return set()
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def stated(text: str, tag: str = "python") -> str:
    """A response whose answer is this text."""
    return f"<think> </think>\n<answer>\n{fence(tag, text)}</answer>"
