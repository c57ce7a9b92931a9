"""What goes wrong in self-play before its rewards show it, each as a metric `alarm/NAME` that is 0 or 1.

An alarm is a pure function of the metrics of the steps so far, so a resumed run, which reads them back, raises the same.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from azr_nemo.observe.overview import Reading, best, fell, reading
from azr_nemo.settings.schema import AlarmsConfig

History: TypeAlias = Sequence[Mapping[str, Any]]  # the metrics of each finished step, in order, with its `step`
Alarm: TypeAlias = Callable[[History, AlarmsConfig], str]  # why it is up, in a sentence; empty while it is not


def diversity(history: History, config: AlarmsConfig) -> str:
    """The proposer writes the same programs over and over: fewer of a step's valid proposals are different programs than once were."""
    return _fall(history, "overview/distinct", config.window, config.diversity_fall, "different programs among a step's valid proposals")


def duplicates(history: History, config: AlarmsConfig) -> str:
    """What the proposer writes is in the buffer already."""
    new = _series(history, "overview/new")[-config.window :]
    if not config.duplicates or len(new) < config.window or (share := 1 - _mean(new)) <= config.duplicates:
        return ""
    return f"{share:.0%} of the valid proposals of {config.window} steps were in the buffer already"


def format_collapse(history: History, config: AlarmsConfig) -> str:
    """Proposals and answers can no longer be read, as they once could."""
    return _fall(history, "overview/format", config.window, config.format_fall, "proposals and answers that can be read")


def reward_hacking(history: History, config: AlarmsConfig) -> str:
    """The solver's reward is higher than when held-out accuracy was at its best, and that accuracy has fallen for certain. It stays up until an
    evaluation finds otherwise."""
    readings = _readings(history)
    if len(readings) < 2:
        return ""
    highest, now = best(readings[:-1]), readings[-1]
    if not fell(highest, now) or not math.isfinite(highest.reward) or now.reward <= highest.reward:
        return ""
    return (
        f"held-out accuracy fell from {highest.accuracy:.2f} at step {highest.step} to {now.accuracy:.2f} while the solver's reward rose "
        f"from {highest.reward:.2f} to {now.reward:.2f}: look for reward hacking"
    )


def echoes(history: History, config: AlarmsConfig) -> str:
    """Abduction is solved by writing the output down as the input: many programs give it again, and no look at them is needed."""
    seen = _series(history, "solve/abduction/echo")[-config.window :]
    if not config.echoes or len(seen) < config.window or (share := _mean(seen)) <= config.echoes:
        return ""
    return (
        f"{share:.0%} of the answers to abduction tasks in {config.window} steps repeat the output: held_out/abduction/without_echo says what is right "
        "without that; reward.echo=left_out pays nothing for them"
    )


def rollout_kl(history: History, config: AlarmsConfig) -> str:
    """The rollout engine samples from another distribution than the trainer believes. One step is enough: the weights are the same."""
    seen = _series(history, "train/rollout_kl_k3")[-config.window :]
    if not config.rollout_kl or not seen or (mean := _mean(seen)) <= config.rollout_kl:
        return ""
    return f"rollout and trainer differ by {mean:.3g} nats a token: look at the rollout engine's precision and refit"


def entropy_collapse(history: History, config: AlarmsConfig) -> str:
    """The policy has become all but deterministic: samples of a group are alike and nothing is left to compare."""
    return _fall(history, "train/entropy", config.window, config.entropy_fall, "nats of entropy a token", "{:.3g}")


ALARMS: dict[str, Alarm] = {
    "diversity": diversity,
    "duplicates": duplicates,
    "format": format_collapse,
    "reward_hacking": reward_hacking,
    "echoes": echoes,
    "rollout_kl": rollout_kl,
    "entropy": entropy_collapse,
}
# All that the functions above look at; a history keeps nothing else of a step.
WATCHED = ("overview/distinct", "overview/new", "overview/format", "train/rollout_kl_k3", "train/entropy", "solve/abduction/echo")


class Alarms:
    """The alarms of a run. rows: what was measured before, as read from metrics.jsonl."""

    def __init__(self, config: AlarmsConfig, rows: Iterable[Mapping[str, Any]] = ()):
        self.config = config
        self._history: list[Mapping[str, Any]] = []
        self.recall(rows)

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes steps that were measured before. Nothing is said of alarms that were up then."""
        self._history += [_kept(int(row["step"]), row) for row in rows]
        self._up = {name for name, alarm in ALARMS.items() if alarm(self._history, self.config)}

    def check(self, step: int, metrics: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """`alarm/NAME` of every alarm, 0 or 1, with their number as `overview/alarms`, and a sentence for each that has just gone up."""
        self._history.append(_kept(step, metrics))
        why = {name: alarm(self._history, self.config) for name, alarm in ALARMS.items()}
        up = {name for name, sentence in why.items() if sentence}
        raised = [f"alarm/{name}: {why[name]}" for name in ALARMS if name in up - self._up]
        self._up = up
        return {**{f"alarm/{name}": float(name in up) for name in ALARMS}, "overview/alarms": float(len(up))}, raised


def _kept(step: int, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    row: dict[str, Any] = {name: metrics[name] for name in WATCHED if name in metrics}
    return {**row, "step": step, "reading": reading(step, metrics)}


def _readings(history: History) -> list[Reading]:
    return [row["reading"] for row in history if row.get("reading")]


def _series(history: History, name: str) -> list[float]:
    """The metric's finite values, by step."""
    values = (row.get(name) for row in history)
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def _fall(history: History, name: str, window: int, allowed: float, what: str, number: str = "{:.0%}") -> str:
    """Whether the mean of the latest `window` values lies by more than the share `allowed` below the highest mean of so many earlier ones."""
    values = _series(history, name)
    if not allowed or len(values) < 2 * window:
        return ""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    means = [(sums[end] - sums[end - window]) / window for end in range(window, len(sums))]
    now, highest = means[-1], max(means[:-window])
    if now >= highest * (1 - allowed):
        return ""
    return f"{what} fell from {number.format(highest)} to {number.format(now)}, means of {window} steps"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
