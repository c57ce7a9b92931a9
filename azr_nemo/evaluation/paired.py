"""Two evaluations of the same items, compared item by item: a difference says more than two means, since an item that is hard is hard for both."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from azr_nemo.evaluation.statistics import quantiles, resampled_means

Scores = Mapping[str, Mapping[str, float]]  # suite -> item id -> score in [0, 1]
AVERAGED = {"code": "Code avg", "math": "Math avg"}
TOTAL = "Total avg"


@dataclass(frozen=True)
class Row:
    """A suite or an average, over the items that both sides have. difference: second minus first, with its 95% interval. p: two-sided, of no difference.
    only_first, only_second: items that were left out because one side lacks them."""

    name: str
    items: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    only_first: int = 0
    only_second: int = 0


@dataclass(frozen=True)
class Comparison:
    """rows: suites in the first side's order, then averages. notes: what could not be compared, in sentences."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    names: tuple[str, str] = ("first", "second")

    def as_markdown(self) -> str:
        """A table in percent, and the notes below it."""
        first, second = (name.replace("|", "\\|") for name in self.names)
        lines = [f"| suite | items | {first} | {second} | difference | 95% | p |", "|---|---|---|---|---|---|---|"]
        for row in self.rows:
            lines.append(
                f"| {row.name} | {row.items} | {100 * row.first:.1f} | {100 * row.second:.1f} | {100 * row.difference:+.1f} | "
                f"{100 * row.low:+.1f} to {100 * row.high:+.1f} | {row.p:.3g} |"
            )
        return "\n".join([*lines, *(["", *self.notes] if self.notes else [])]) + "\n"

    def as_json(self) -> str:
        """The same, unrounded; one object with `names`, `rows` and `notes`."""
        return json.dumps({"names": self.names, "rows": [asdict(row) for row in self.rows], "notes": self.notes}, indent=1) + "\n"


def compare(
    first: Scores,
    second: Scores,
    groups: Mapping[str, str],
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
    draws: int = 10_000,
) -> Comparison:
    """The paired bootstrap over items (Efron and Tibshirani 1993), suite by suite, and the averages of the original's table: the mean over a group's
    suites, and the mean of code and maths. groups: suite -> code, math or another, which is not averaged."""
    rows: list[Row] = []
    resampled: dict[str, NDArray[np.float64]] = {}
    notes: list[str] = []
    for suite in [*first, *(name for name in second if name not in first)]:
        if suite not in first or suite not in second:
            notes.append(f"{suite} is only in {names[0] if suite in first else names[1]} and was not compared.")
            continue
        one, other = first[suite], second[suite]
        common = sorted(one.keys() & other.keys())
        left_out = len(one) - len(common), len(other) - len(common)
        for side, count in zip(names, left_out, strict=True):
            if count:
                notes.append(f"{suite}: {count} {'item is' if count == 1 else 'items are'} only in {side} and {_were(count)} left out.")
        if not common:
            notes.append(f"{suite} has no item in common and was not compared.")
            continue
        pair = np.array([[one[item], other[item]] for item in common], dtype=np.float64)
        # Of its own seed: what else is compared does not matter.
        means = resampled_means(pair[:, 1] - pair[:, 0], np.random.default_rng([seed, zlib.crc32(suite.encode())]), draws)
        resampled[suite] = means
        rows.append(_row(suite, len(common), float(pair[:, 0].mean()), float(pair[:, 1].mean()), means, *left_out))
    return Comparison((*rows, *_averages(rows, resampled, groups, notes)), tuple(notes), names)


def _averages(rows: list[Row], resampled: Mapping[str, NDArray[np.float64]], groups: Mapping[str, str], notes: list[str]) -> list[Row]:
    """Suites are independent of each other, so their resampled differences are averaged draw by draw."""
    found: list[Row] = []
    draws: list[NDArray[np.float64]] = []
    for group, title in AVERAGED.items():
        members = [row for row in rows if groups.get(row.name) == group]
        if not members:
            continue
        draws.append(np.mean([resampled[row.name] for row in members], axis=0))
        found.append(_average(title, members, draws[-1]))
    if len(found) == len(AVERAGED):
        found.append(_average(TOTAL, found, np.mean(draws, axis=0)))
    elif found:
        notes.append(f"{TOTAL} needs suites of code and of maths.")
    return found


def _average(name: str, members: list[Row], means: NDArray[np.float64]) -> Row:
    first, second = (sum(getattr(row, side) for row in members) / len(members) for side in ("first", "second"))
    return _row(name, sum(row.items for row in members), first, second, means)


def _row(name: str, items: int, first: float, second: float, means: NDArray[np.float64], only_first: int = 0, only_second: int = 0) -> Row:
    low, high = quantiles(means)
    # The share of resampled differences of the other sign, twice; a draw counts as seen once, so that no p is 0.
    tails = ((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (1 + int(min(tails))) / (1 + len(means)))
    return Row(name, items, first, second, second - first, low, high, p, only_first, only_second)


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
