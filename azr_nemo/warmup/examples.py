"""Supervised examples of the warm start: the six forms of self-play, in the recipe's own prompts, with ideal completions."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.program import body_lines
from azr_nemo.tasks.task import PromptOptions, PromptText, Proposal, Role, Task, TaskType
from azr_nemo.warmup.generator import one_pair

# Solving is harder to learn than proposing; of the proposals those of induction, where the model must count its inputs.
MIXTURE = {
    (Role.SOLVE, TaskType.DEDUCTION): 0.25,
    (Role.SOLVE, TaskType.ABDUCTION): 0.20,
    (Role.SOLVE, TaskType.INDUCTION): 0.21,
    (Role.PROPOSE, TaskType.DEDUCTION): 0.09,
    (Role.PROPOSE, TaskType.ABDUCTION): 0.09,
    (Role.PROPOSE, TaskType.INDUCTION): 0.16,
}


def examples(tasks: list[Task], options: PromptOptions, references: int, seed: int) -> Iterator[tuple[PromptText, str]]:
    """An endless stream of (prompt, ideal completion), the same for the same arguments. tasks: induction tasks with several pairs.

    references: how many tasks a proposer is shown. Deduction and abduction proposals carry the requested length that self-play asks for
    with `selfplay.reference_sampling=depth`, so that asking for a length means something.
    """
    rng = Random(f"examples/{seed}")
    forms, weights = list(MIXTURE), list(MIXTURE.values())
    while True:
        task = rng.choice(tasks)
        role, kind = rng.choices(forms, weights)[0]
        pair = rng.randrange(len(task.inputs))
        asked = task if kind is TaskType.INDUCTION else one_pair(task, kind, pair)
        if role is Role.SOLVE:
            yield _solve(asked, options)
        elif kind is TaskType.INDUCTION:
            # Programs in self-play carry no description, so the proposer learns to write inputs alone.
            proposal = Proposal(kind, task.program, task.inputs)
            yield KINDS[kind].propose_prompt([asked], options), KINDS[kind].proposal_text(proposal, options)
        else:
            shown = [one_pair(other, kind, rng.randrange(len(other.inputs))) for other in rng.sample(tasks, min(references, len(tasks)))]
            wanted = replace(options, lines=body_lines(task.program) if rng.random() < 0.7 else None)
            proposal = Proposal(kind, asked.program, asked.inputs)
            yield KINDS[kind].propose_prompt(shown, wanted), KINDS[kind].proposal_text(proposal, wanted)


def _solve(task: Task, options: PromptOptions) -> tuple[PromptText, str]:
    kind = KINDS[task.type]
    if task.type is TaskType.INDUCTION:
        task, answer = replace(task, message=""), task.program
    else:
        answer = task.output if task.type is TaskType.DEDUCTION else task.input
    return kind.solve_prompt(task, options), kind.answer_text(answer, options)
