"""The step's metrics, by role and task type. docs/metrics.md says what each means."""

from collections import Counter
from collections.abc import Callable, Iterable

from azr_nemo.rewards.answer import MALFORMED
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Attempt
from azr_nemo.selfplay.proposer import Proposed
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.composite import own_part
from azr_nemo.tasks.other_inputs import is_echo
from azr_nemo.tasks.program import body_lines
from azr_nemo.tasks.task import PromptOptions, TaskType


def measure(
    proposals: list[Proposed],
    proposed: list[Attempt],
    solved: list[Attempt],
    buffer: TaskBuffer,
    options: PromptOptions,
    learnt: Callable[[str], bool],
) -> dict[str, float]:
    """Means over the rows of one step; a key is absent where there is nothing to average. learnt: whether an answer of this outcome is trained on."""
    metrics: dict[str, float | None] = {}
    for kind in TaskType:
        rows = [p for p in proposals if p.type is kind]
        answers = [a for a in solved if a.prompt.type is kind]
        if not rows and not answers:
            continue
        valid = [p for p in rows if p.task is not None]
        fresh = [p for p in rows if p.fresh]
        earned = [a.reward for a in proposed if a.prompt.type is kind]
        metrics |= {
            f"propose/{kind}/valid": mean(p.task is not None for p in rows),
            f"propose/{kind}/format": mean(p.refusal not in MALFORMED for p in rows),
            f"propose/{kind}/new": mean(p.fresh for p in valid),
            f"propose/{kind}/novel": mean(p.novel for p in valid),
            f"propose/{kind}/distinct": len({buffer.program_key(p.task) for p in valid if p.task}) / len(valid) if valid else None,
            f"propose/{kind}/lines": mean(body_lines(own_part(p.given.texts, p.task.program)) for p in valid if p.task),
            f"propose/{kind}/solve_rate": mean(p.solve_rate for p in fresh),
            f"propose/{kind}/learnable": mean(0 < p.solve_rate < 1 for p in fresh),
            f"propose/{kind}/reward": mean(earned),
            f"solve/{kind}/accuracy": mean(a.outcome == "right" for a in answers),
            f"solve/{kind}/reward": mean(a.reward for a in answers),
            f"solve/{kind}/format": mean(a.outcome not in MALFORMED for a in answers),
            f"solve/{kind}/truncated": mean(not a.completion.finished for a in answers),
            f"buffer/{kind}/size": buffer.count(kind),
        }
        if any(a.prompt.samples > 1 for a in answers):
            metrics[f"solve/{kind}/spread"] = mean(len(rewards) > 1 for rewards in _rewards_by_task(answers, learnt).values())
        if kind is TaskType.ABDUCTION:
            metrics[f"solve/{kind}/echo"] = mean(answers_by_echo(a, options) for a in answers)
        if composite := [p for p in rows if p.given.texts]:
            metrics[f"composite/{kind}/asked"] = len(composite) / len(rows)
            metrics[f"composite/{kind}/valid"] = mean(p.task is not None for p in composite)
        for name in sorted({name for p in fresh for name in p.intrinsic}):
            metrics[f"intrinsic/{kind}/{name}"] = mean(p.intrinsic[name] for p in fresh if name in p.intrinsic)
    metrics["response/propose_tokens"] = mean(len(a.completion.response_ids) for a in proposed)
    metrics["response/solve_tokens"] = mean(len(a.completion.response_ids) for a in solved)
    metrics |= {f"refused/{reason}": count for reason, count in Counter(p.refusal for p in proposals if p.refusal).items()}
    return {name: float(value) for name, value in metrics.items() if value is not None}


def _rewards_by_task(answers: Iterable[Attempt], learnt: Callable[[str], bool]) -> dict[int | None, set[float]]:
    """What those answers to each task earned that are trained on."""
    earned: dict[int | None, set[float]] = {}
    for answer in answers:
        earned.setdefault(answer.task_id, set()).update([answer.reward] if learnt(answer.outcome) else [])
    return earned


def answers_by_echo(attempt: Attempt, options: PromptOptions) -> bool:
    """Whether an answer to an abduction task has the task's output among its arguments: right ones of these need no look at the program."""
    answer = KINDS[attempt.prompt.type].parse_answer(attempt.prompt.text.prefill + attempt.completion.text, options)
    return isinstance(answer, str) and attempt.task is not None and is_echo(attempt.task, answer)


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else None
