"""Supervised examples of the warm start: the six forms of self-play, in the recipe's own prompts, with ideal completions."""

import ast
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.composite import as_function
from azr_nemo.tasks.parsing import parsed
from azr_nemo.tasks.program import body_lines, is_held_out
from azr_nemo.tasks.task import PromptOptions, PromptText, Proposal, Refusal, Role, Task, TaskType
from azr_nemo.warmup.generator import one_pair


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


# Solving is harder to learn than proposing; of the proposals those of induction, where the model must count its inputs.
MIXTURE = {
    (Role.SOLVE, TaskType.DEDUCTION): 0.25,
    (Role.SOLVE, TaskType.ABDUCTION): 0.20,
    (Role.SOLVE, TaskType.INDUCTION): 0.21,
    (Role.PROPOSE, TaskType.DEDUCTION): 0.09,
    (Role.PROPOSE, TaskType.ABDUCTION): 0.09,
    (Role.PROPOSE, TaskType.INDUCTION): 0.16,
}

COMPOSITE = 0.5  # of the deduction and abduction proposals, with `selfplay.composite` on
TRIES = 20  # about one program in four can be taken apart


def examples(tasks: list[Task], options: PromptOptions, references: int, seed: int, functions: int = 0) -> Iterator[tuple[PromptText, str]]:
    """An endless stream of (prompt, ideal completion), the same for the same arguments. tasks: induction tasks with several pairs.

    references: how many tasks a proposer is shown. Deduction and abduction proposals carry the requested length that self-play asks for
    with `selfplay.reference_sampling=depth`, so that asking for a length means something. functions: the most that a composite proposal is
    given; 0: there are none of those.
    """
    rng = Random(f"examples/{seed}")
    while True:
        with contextlib.suppress(ValueError):  # the prompt style cannot say it
            yield _example(tasks, options, references, functions, rng)


def _example(tasks: list[Task], options: PromptOptions, references: int, functions: int, rng: Random) -> tuple[PromptText, str]:
    forms, weights = list(MIXTURE), list(MIXTURE.values())
    task = rng.choice(tasks)
    role, kind = rng.choices(forms, weights)[0]
    pair = rng.randrange(len(task.inputs))
    asked = task if kind is TaskType.INDUCTION else one_pair(task, kind, pair)
    if role is Role.SOLVE:
        return _solve(asked, options)
    if kind is TaskType.INDUCTION:
        # Programs in self-play carry no description, so the proposer learns to write inputs alone.
        proposal = Proposal(kind, task.program, task.inputs)
        return KINDS[kind].propose_prompt([asked], options), KINDS[kind].proposal_text(proposal, options)
    shown = [one_pair(other, kind, rng.randrange(len(other.inputs))) for other in rng.sample(tasks, min(references, len(tasks)))]
    wanted = replace(options, lines=body_lines(task.program) if rng.random() < 0.7 else None)
    proposal = Proposal(kind, asked.program, asked.inputs)
    if functions and rng.random() < COMPOSITE and (made := _composite(tasks, kind, rng.randint(1, functions), rng)):
        wanted = replace(wanted, functions=made[0], lines=wanted.lines and body_lines(made[1].program))
        proposal = made[1]
    return KINDS[kind].propose_prompt(shown, wanted), KINDS[kind].proposal_text(proposal, wanted)


def _composite(tasks: list[Task], kind: TaskType, most: int, rng: Random) -> tuple[tuple[str, ...], Proposal] | None:
    """Functions and the proposal that calls them, of the first of some tasks that can be taken apart."""
    for task in rng.sample(tasks, min(TRIES, len(tasks))):
        if parts := outsourced(task.program, most):
            return parts[0], Proposal(kind, parts[1], (rng.choice(task.inputs),))
    return None


def _solve(task: Task, options: PromptOptions) -> tuple[PromptText, str]:
    kind = KINDS[task.type]
    if task.type is TaskType.INDUCTION:
        task = replace(task, message="")
    return kind.solve_prompt(task, options), kind.answer_text(kind.known_answer(task), options)
