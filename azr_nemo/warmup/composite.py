"""Ideal answers to composite prompts, made of the grammar's programs: their first steps become the given functions."""

import ast

from azr_nemo.tasks.composite import as_function
from azr_nemo.tasks.held_out import is_held_out
from azr_nemo.tasks.parsing import parsed
from azr_nemo.tasks.task import Refusal


def outsourced(program: str, most: int) -> tuple[tuple[str, ...], str] | None:
    """Functions for the first assignments of a straight program, at most `most`, and the program that calls them instead; it returns the same.

    None where there is no such assignment, or where a function would be a held-out program. `y = x + 1; return y * 2` gives
    `def g_0(x): return x + 1` and `y = g_0(x); return y * 2`.
    """
    tree = parsed(program)
    (entry,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    known, functions = {argument.arg for argument in entry.args.args}, list[str]()
    for statement in entry.body[:most]:
        if not (isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name)):
            break
        used = [node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name) and node.id in known]
        arguments = ", ".join(dict.fromkeys(used))
        step = f"def f({arguments}):\n    return {ast.unparse(statement.value)}"
        function = as_function(step, len(functions))
        if not arguments or is_held_out(step) or isinstance(function, Refusal):
            break
        statement.value = parsed(f"g_{len(functions)}({arguments})", "eval").body
        functions.append(function)
        known.add(target.id)
    return (tuple(functions), ast.unparse(tree)) if functions else None
