"""A seeded generator of easy, varied, executed programs: what the warm start learns from and what held-out evaluation asks.

Whether a program is held out depends on its normalised source alone, so training and evaluation never share a program, whatever the seeds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from azr_nemo.progress import Listener
from azr_nemo.sandbox.executor import Executor, Limits, Outcome, Request
from azr_nemo.tasks.program import is_held_out
from azr_nemo.tasks.task import Task, TaskType
from azr_nemo.warmup.grammar import ACCEPTS, BLOCKS, STEPS, TWO, Block, Step, constants, value

MAX_OUTPUT_CHARS = 48  # longer outputs teach copying, not reasoning
SHAPES = {1: 0.52, 2: 0.25, 3: 0.06, "block": 0.17}  # straight-line programs of so many steps, or a loop or branch
PARAMETERS = {"int": 0.24, "str": 0.26, "ints": 0.24, "strs": 0.03, "dict": 0.05, "pair": 0.03, "two": 0.15}
CHUNK = 10_000  # drafts executed together
# Ample, so that a busy machine does not decide which tasks there are.
LIMITS = Limits(wall_s=20.0, cpu_s=5.0)

# Steps that end the program or need rare kinds are taken less often.
WEIGHT = {"bool": 0.4, "tuple": 0.5, "dict": 0.5, "any": 0.5}


@dataclass(frozen=True)
class Draft:
    """A program not yet executed: its source, the kinds of its parameters and what it does in words."""

    program: str
    kinds: tuple[str, ...]
    message: str


def generate_tasks(
    count: int, seed: int, executor: Executor, pairs: int = 6, held_out: bool = False, phase: Listener | None = None
) -> list[Task]:
    """`count` induction tasks with `pairs` input/output pairs and a message each; `one_pair` makes deduction or abduction of them.

    Training tasks may repeat a program with other inputs, as the short ones are few; held-out tasks have a program each. The same
    arguments give the same tasks. phase: is told of the programs that were run. Raises ExecutorUnavailable when the sandbox dies and
    RuntimeError when the grammar cannot give so many.
    """
    tasks: list[Task] = []
    seen: set[tuple] = set()
    drafts = _drafts(Random(f"{seed}/{held_out}"), pairs, held_out)
    for _ in range(20 + 20 * count // CHUNK):
        drawn = list(islice(drafts, min(CHUNK, 2 * (count - len(tasks)) + 20)))
        for (draft, inputs), outcomes in zip(drawn, _execute(drawn, executor, phase), strict=True):
            outputs = tuple(o.value for o in outcomes if o.ok and o.value is not None and len(o.value) <= MAX_OUTPUT_CHARS)
            key = (draft.program,) if held_out else (draft.program, inputs)
            if len(outputs) == pairs and len(set(outputs)) > 1 and key not in seen:
                seen.add(key)
                tasks.append(Task(TaskType.INDUCTION, draft.program, inputs, outputs, draft.message))
        if len(tasks) >= count:
            return tasks[:count]
    raise RuntimeError(f"the warm start's grammar gave only {len(tasks)} of {count} tasks; ask for fewer")


def one_pair(task: Task, kind: TaskType, pair: int) -> Task:
    """The deduction or abduction task of one of an induction task's pairs."""
    return Task(kind, task.program, (task.inputs[pair],), (task.outputs[pair],))


def _execute(drawn: list[tuple[Draft, tuple[str, ...]]], executor: Executor, phase: Listener | None) -> list[list[Outcome]]:
    """What came of each draft's inputs. A program drawn several times is run once, on all its inputs: starting it costs more than a call."""
    inputs: dict[str, dict[str, None]] = {}
    for draft, texts in drawn:
        inputs.setdefault(draft.program, {}).update(dict.fromkeys(texts))
    requests = [Request(program, tuple(texts), LIMITS) for program, texts in inputs.items()]
    if phase:
        phase.expect(phase.done + len(requests))
    results = zip(requests, executor.run(requests, phase.advance if phase else None), strict=True)
    found = {request.program: dict(zip(request.inputs, outcomes, strict=True)) for request, outcomes in results}
    return [[found[draft.program][text] for text in texts] for draft, texts in drawn]


def _drafts(random: Random, pairs: int, held_out: bool) -> Iterator[tuple[Draft, tuple[str, ...]]]:
    while True:
        draft = _draft(random)
        if is_held_out(draft.program) != held_out:
            continue
        drawn = (", ".join(value(kind, random) for kind in draft.kinds) for _ in range(5 * pairs))
        inputs = tuple(dict.fromkeys(drawn))[:pairs]
        if len(inputs) == pairs:
            yield draft, inputs


def _draft(random: Random) -> Draft:
    kind = random.choices(list(PARAMETERS), list(PARAMETERS.values()))[0]
    shape = random.choices(list(SHAPES), list(SHAPES.values()))[0]
    fitting = [block for block in BLOCKS if block.takes == kind]
    if shape == "block" and fitting:
        return _branching(random, random.choice(fitting))
    return _straight(random, kind, shape if isinstance(shape, int) else random.randint(2, 3))


def _straight(random: Random, kind: str, steps: int) -> Draft:
    kinds: tuple[str, ...] = (kind,)
    names = ["y", "z", "t"]
    body, phrases, v = [], [], "x"
    for i in range(steps):
        if kind == "two":
            kinds, step = random.choice(TWO)
            names.remove("y")
        else:
            step = _step(random, kind)
        expression = step.template.format(v=v, x="x", y="y", **constants(random))
        phrases.append(step.phrase)
        kind = kind if step.gives == "same" else step.gives
        if i == steps - 1 or not ACCEPTS[kind]:
            body.append(f"return {expression}")
            break
        v = names.pop(0)
        body.append(f"{v} = {expression}")
    return Draft(_source(kinds, body), kinds, ", then ".join(phrases))


def _branching(random: Random, block: Block) -> Draft:
    drawn = constants(random)
    body = [line.format(x="x", **drawn) for line in block.lines]
    result, phrase = block.result.format(x="x", **drawn), block.phrase
    if result == "z" and random.random() < 0.25:
        step = _step(random, block.gives)
        result = step.template.format(v="z", **constants(random))
        phrase += f", then {step.phrase}"
    return Draft(_source((block.takes,), [*body, f"return {result}"]), (block.takes,), phrase)


def _step(random: Random, kind: str) -> Step:
    fitting = [step for step in STEPS if step.takes in ACCEPTS[kind]]
    return random.choices(fitting, [WEIGHT.get(step.gives, 1.0) for step in fitting])[0]


def _source(kinds: tuple[str, ...], body: list[str]) -> str:
    names = ", ".join("xy"[: len(kinds)])
    return "\n    ".join([f"def f({names}):", *body])
