"""What can be said of a benchmark score: pass@k from several samples, and how far a mean over items may be from the truth."""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
CHUNK = 1 << 22  # indices drawn at once: bounds the memory of a bootstrap


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k samples hold a right one, estimated without bias from n samples of which c were right: 1 - C(n-c, k) / C(n, k).

    As a product, which neither overflows nor cancels (Chen et al. 2021, arXiv 2107.03374). Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {c} right among {n} samples: expected 0 <= right <= samples and 1 <= k <= samples")
    if n - c < k:
        return 1.0
    # The shorter of two ways to write the same product.
    wrong = math.prod((n - c - i) / (n - i) for i in range(k)) if k < c else math.prod((n - k - i) / (n - i) for i in range(c))
    return 1.0 - wrong


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927)."""
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(scores: Sequence[float], samples: int = 1, seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """A 95% interval of the mean of scores in [0, 1], one per item, each the mean of `samples` samples.

    One sample per item, all right or wrong: Wilson's. Otherwise the percentile bootstrap over items: the samples of an item are not independent, so an
    item is drawn whole. Raises ValueError without scores.
    """
    if not scores:
        raise ValueError("an interval needs at least one score")
    values = np.asarray(scores, dtype=np.float64)
    if samples == 1 and np.isin(values, (0.0, 1.0)).all():
        return wilson(int(values.sum()), len(values))
    low, high = quantiles(resampled_means(values, np.random.default_rng(seed), draws))
    return max(0.0, low), min(1.0, high)


def resampled_means(values: NDArray[np.float64], random: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Means of `draws` samples with replacement of the values, each of their number."""
    step = max(1, CHUNK // len(values))
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    return np.concatenate([values[random.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes])


def quantiles(means: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the central 95%."""
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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
