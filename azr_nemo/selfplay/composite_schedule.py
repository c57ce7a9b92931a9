"""When a proposer is asked for a composite program, and which programs of the buffer it builds on: `selfplay.composite`.

What is drawn depends on the step's random state, the step's number and the buffer alone; nothing is drawn while the chance is 0.
"""

import random
from dataclasses import dataclass

from azr_nemo.selfplay.buffer import StoredTask, TaskBuffer
from azr_nemo.selfplay.validation import Validated, Validator
from azr_nemo.settings.schema import CompositeConfig
from azr_nemo.tasks import triplets
from azr_nemo.tasks.composite import as_function, without
from azr_nemo.tasks.parsing import same_literal
from azr_nemo.tasks.program import program_hash
from azr_nemo.tasks.task import Calls, Refusal, Task, TaskType

CANDIDATES = 8  # tasks that are looked at for each function that is wanted: not every program can be one


@dataclass(frozen=True)
class Given:
    """The functions of one prompt: the tasks that they come from and their texts, in the order of their numbers. None: an ordinary prompt."""

    tasks: tuple[StoredTask, ...] = ()
    texts: tuple[str, ...] = ()


def chance(settings: CompositeConfig, step: int) -> float:
    """The probability that a prompt of this step (from 1; 0 is seeding) is composite: 0 before `start`, then over `ramp` steps evenly up to
    `chance`, which the last of them has."""
    if step < settings.start:
        return 0.0
    return settings.chance * min(1.0, (step - settings.start + 1) / max(settings.ramp, 1))


def most(settings: CompositeConfig, step: int) -> int:
    """The most functions that a prompt of this step may have: one more than at first after every `grow_every` steps since `start`."""
    if not settings.grow_every:
        return settings.functions_max
    return min(settings.functions_min + max(step - settings.start, 0) // settings.grow_every, settings.functions_max)


def give(settings: CompositeConfig, buffer: TaskBuffer, kind: TaskType, step: int, rng: random.Random) -> Given:
    """The functions for one prompt. None for induction, which describes programs that exist; and none where the buffer has fewer different
    programs that can stand together than are wanted."""
    probability = chance(settings, step) if kind in triplets() else 0.0
    if not probability or rng.random() >= probability:
        return Given()
    wanted = rng.randint(settings.functions_min, most(settings, step))
    tasks: list[StoredTask] = []
    texts: list[str] = []
    known: set[str] = set()
    for stored in buffer.sample(kind, wanted * CANDIDATES, rng):
        text = as_function(stored.task.program, len(texts), texts)
        program = program_hash(stored.task.program)
        if isinstance(text, Refusal) or program in known:
            continue
        tasks.append(stored)
        texts.append(text)
        known.add(program)
        if len(texts) == wanted:
            return Given(tuple(tasks), tuple(texts))
    return Given()


def refuse_idle(validator: Validator, given: list[Given], results: list[Validated]) -> list[Validated]:
    """The results, with a refusal for each composite task that has a function which its call of `f` does not reach: `if False: g_0(x)` is no
    use of g_0. Each task is run once more for each of its functions, which then raises; one that still returns the same did without."""
    runs: list[tuple[int, Calls]] = []
    for place, (functions, task) in enumerate(zip(given, results, strict=True)):
        if isinstance(task, Task):
            runs += [(place, Calls(without(functions.texts, task.program, i), task.inputs)) for i in range(len(functions.texts))]
    judged = list(results)
    for (place, _), (result,) in zip(runs, validator.run([calls for _, calls in runs]), strict=True):
        task = results[place]
        if isinstance(task, Task) and result.ok and same_literal(str(result.value), task.output):
            judged[place] = Refusal("composite_uncalled", "with this input f does not call each of the given functions")
    return judged
