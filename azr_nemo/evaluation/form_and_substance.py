"""What a gain is made of: answers that became well-formed, and answers that were well-formed before and became right.

A model that learns to end its lines, to close its brackets or to write a call that runs scores higher without reasoning any better; so does an untuned one
that is asked in a better prompt. Only where an answer could be judged before and after does being right tell of substance.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from azr_nemo.evaluation.statistics import quantiles, resampled_means
from azr_nemo.observe.jsonl import read_rows

JUDGED = ("right", "wrong_value")  # the reasons of answers that were read, ran, and gave a value to compare
Rows = Iterable[Mapping[str, Any]]


def well_formed(row: Mapping[str, Any]) -> bool:
    """Whether an answer ended by itself, could be read, and raised nothing."""
    return bool(row["finished"]) and row["reason"] in JUDGED


@dataclass(frozen=True)
class Split:
    """Second minus first over `items` items, answered once each or by as many samples: difference = form + substance.

    became, lost: answers that are well-formed on one side alone. both: on both sides; right_first, right_second: of those. form: what the difference
    owes to became and lost. substance: what it owes to both, with its 95% interval (paired bootstrap over items).
    """

    items: int
    first: float
    second: float
    became: int
    lost: int
    both: int
    right_first: int
    right_second: int
    form: float
    substance: float
    low: float
    high: float


def split(first: Rows, second: Rows, draws: int = 10_000) -> Split:
    """The answers that both sides have, paired by item and sample. Rows are those of `azr-nemo eval`: id, sample, finished, right, reason. Raises
    ValueError when they have none in common."""
    before, after = ({(row["id"], row["sample"]): row for row in rows} for rows in (first, second))
    keys = sorted(before.keys() & after.keys())
    if not keys:
        raise ValueError("no answer is on both sides")
    right = _flags(before, after, keys, lambda row: bool(row["right"]))
    formed = _flags(before, after, keys, well_formed)
    both = formed[:, 0] & formed[:, 1]
    change = right[:, 1].astype(np.float64) - right[:, 0]
    by_item: dict[str, list[float]] = {}
    for (item, _), value in zip(keys, change * both, strict=True):
        by_item.setdefault(item, []).append(float(value))
    # Weighed by answers: where items have as many samples each, the mean of means is the mean.
    contributions = np.array([sum(values) for values in by_item.values()]) * len(by_item) / len(keys)
    low, high = quantiles(resampled_means(contributions, np.random.default_rng(0), draws))
    return Split(
        items=len(by_item),
        first=float(right[:, 0].mean()),
        second=float(right[:, 1].mean()),
        became=int((~formed[:, 0] & formed[:, 1]).sum()),
        lost=int((formed[:, 0] & ~formed[:, 1]).sum()),
        both=int(both.sum()),
        right_first=int(right[both, 0].sum()),
        right_second=int(right[both, 1].sum()),
        form=float((change * ~both).mean()),
        substance=float((change * both).mean()),
        low=low,
        high=high,
    )


def splits_of(first: Path, second: Path, suites: Iterable[str]) -> dict[str, Split]:
    """The split of each suite whose graded answers both directories have. Raises UserError for a file that is damaged."""
    found = {}
    for name in suites:
        files = [folder / f"{name}.jsonl" for folder in (first, second)]
        if all(file.is_file() for file in files):
            before, after = (list(read_rows(file, "id", str)) for file in files)
            if {(row["id"], row["sample"]) for row in before} & {(row["id"], row["sample"]) for row in after}:
                found[name] = split(before, after)
    return found


def table(splits: Mapping[str, Split]) -> str:
    """Markdown, a line a suite."""
    lines = [
        "| suite | answers became well-formed | lost their form | well-formed before and after | of those right before, after | difference | form | "
        "substance, 95% |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in splits.items():
        lines.append(
            f"| {name} | {found.became} | {found.lost} | {found.both} | {found.right_first}, {found.right_second} | {found.second - found.first:+.3f} | "
            f"{found.form:+.3f} | {found.substance:+.3f} [{found.low:+.3f}, {found.high:+.3f}] |"
        )
    return "\n".join(lines) + "\n"


def _flags(
    before: Mapping[Any, Any], after: Mapping[Any, Any], keys: list[Any], flag: Callable[[Mapping[str, Any]], bool]
) -> NDArray[np.bool_]:
    return np.array([[flag(before[key]), flag(after[key])] for key in keys], dtype=bool)
