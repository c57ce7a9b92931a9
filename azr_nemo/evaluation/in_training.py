"""Benchmarks during training: a fixed subset of some suites, asked greedily every `eval.every` steps through the run's own engine."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from random import Random
from typing import Any

from azr_nemo.evaluation.statistics import wilson
from azr_nemo.evaluation.suite import WITHOUT_ECHO, Item, Suite, Tools
from azr_nemo.evaluation.templates import prompt_text
from azr_nemo.selfplay.exchange import Attempt, Completion, Completions, Prompt, PromptBatch, SampleGroup, ask
from azr_nemo.selfplay.measure import answers_by_echo
from azr_nemo.selfplay.solver import Solver
from azr_nemo.tasks.task import Role, Task, TaskType
from azr_nemo.warmup.generator import one_pair

SEED = "validation"  # the same items for every run, so that runs can be compared


def subset(items: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` of the items (0: all), drawn once and for all, in their order."""
    if not limit or limit >= len(items):
        return list(items)
    return [items[index] for index in sorted(Random(SEED).sample(range(len(items)), limit))]


class Validation:
    """The chosen items of some suites. max_tokens: longest response; tokenizer: for templates that need it."""

    def __init__(self, suites: Sequence[tuple[Suite, Sequence[Item]]], tools: Tools, tokenizer: Any, max_tokens: int):
        self.suites, self.tools, self.tokenizer, self.max_tokens = suites, tools, tokenizer, max_tokens

    def evaluate(self) -> Generator[PromptBatch, Completions, dict[str, float]]:
        """Yields the prompts like the step does; returns `eval/<suite>` with `_low` and `_high`, a 95% Wilson interval, and of inputs how many are right
        without repeating the output."""
        asked = [(suite, self._row(suite, item)) for suite, items in self.suites for item in items]
        yield from ask([row for _, row in asked], "evaluate")
        metrics: dict[str, float] = {}
        for suite, items in self.suites:
            right = sum(row.outcomes()[0].right for asked_of, row in asked if asked_of is suite)
            low, high = wilson(right, len(items))
            metrics |= {f"eval/{suite.name}": right / len(items), f"eval/{suite.name}_low": low, f"eval/{suite.name}_high": high}
            parts = [row.outcomes()[0].parts for asked_of, row in asked if asked_of is suite]
            if honest := [part[WITHOUT_ECHO] for part in parts if WITHOUT_ECHO in part]:
                metrics[f"held_out/{suite.name}/{WITHOUT_ECHO}"] = sum(honest) / len(honest)
        return metrics

    def _row(self, suite: Suite, item: Item) -> SampleGroup:
        text = prompt_text(suite, item, suite.template, self.tokenizer)

        def read(completion: Completion) -> Future:
            return suite.submit(item, text.prefill + completion.text, self.tools)

        # Only the solver answers here; the task type of a benchmark's item means nothing.
        return SampleGroup(Prompt(text, Role.SOLVE, TaskType.DEDUCTION, 1, min(self.max_tokens, suite.max_tokens), 0.0), read)


class HeldOut:
    """A fixed set of tasks: one task of each type for every held-out program. tasks: induction tasks of `generate_tasks(held_out=True)`."""

    def __init__(self, tasks: list[Task], solver: Solver):
        rng = Random("held-out")
        self.solver = solver
        self.tasks = [
            task if kind is TaskType.INDUCTION else one_pair(task, kind, rng.randrange(len(task.inputs)))
            for task in tasks
            for kind in TaskType
        ]

    def evaluate(self) -> Generator[PromptBatch, Completions, dict[str, float]]:
        """Yields the prompts like the step does; returns `eval/<type>` with `_low` and `_high`, a 95% Wilson interval, and of abduction how many answers
        repeat the output and how many are right without that: a run that learns the one loses the other."""
        rows = [self.solver.row(task, samples=1, temperature=0.0, echo="right") for task in self.tasks]
        yield from ask(rows, "evaluate")
        metrics: dict[str, float] = {}
        for kind in TaskType:
            scores = [row.outcomes()[0].score == 1 for row, task in zip(rows, self.tasks, strict=True) if task.type is kind]
            low, high = wilson(sum(scores), len(scores))
            metrics |= {f"eval/{kind}": sum(scores) / len(scores), f"eval/{kind}_low": low, f"eval/{kind}_high": high}
            if kind is TaskType.ABDUCTION:
                echoes = [self._echo(row, task) for row, task in zip(rows, self.tasks, strict=True) if task.type is kind]
                metrics[f"held_out/{kind}/echo"] = sum(echoes) / len(echoes)
                honest = sum(right and not echo for right, echo in zip(scores, echoes, strict=True))
                metrics[f"held_out/{kind}/{WITHOUT_ECHO}"] = honest / len(echoes)
        return metrics

    def _echo(self, row: SampleGroup, task: Task) -> bool:
        return answers_by_echo(Attempt(row.prompt, row.completions[0], 0.0, "", task), self.solver.options)
