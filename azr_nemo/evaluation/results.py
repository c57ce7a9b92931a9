"""What an evaluation came to: one file that two evaluations of the same answers write alike, and a table of it."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from azr_nemo.errors import UserError
from azr_nemo.evaluation.statistics import interval, pass_at_k
from azr_nemo.evaluation.suite import Suite

RESULTS = "results.json"


def summarise(suite: Suite, rows: Iterable[Mapping[str, Any]], pass_k: Iterable[int]) -> dict[str, Any]:
    """A suite's figures from its rows. pass@1 with a 95% interval over items; parts: pass@1 of each further verdict; scores: share of right samples by
    item."""
    by_item: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_item[row["id"]].append(row)
    everything = [row for group in by_item.values() for row in group]
    if not everything:
        raise UserError(f"suite {suite.name} has no items: run `azr-nemo data prepare` again")
    scores = {name: _share(group) for name, group in by_item.items()}
    low, high = interval(list(scores.values()), samples=len(next(iter(by_item.values()))))
    parts = sorted({part for row in everything for part in row["parts"]})
    figures: dict[str, Any] = {
        "group": suite.group,
        "items": len(by_item),
        "size": suite.size,
        "samples": len(next(iter(by_item.values()))),
        "low": low,
        "high": high,
        "truncated": sum(not row["finished"] for row in everything) / len(everything),
        "tokens": sum(row["tokens"] for row in everything) / len(everything),
        "reasons": dict(sorted(Counter(row["reason"] for row in everything).items())),
        "parts": {part: _mean(_share(group, part) for group in by_item.values()) for part in parts},
        "scores": dict(sorted(scores.items())),
    }
    for k in sorted({1, *pass_k}):
        figures[f"pass@{k}"] = _mean(pass_at_k(len(group), sum(row["right"] for row in group), k) for group in by_item.values())
    return figures


def averages(suites: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Mean pass@1 over the suites of each group; `total` is the mean of code and maths, as in the original's table."""
    groups: dict[str, list[float]] = defaultdict(list)
    for figures in suites.values():
        groups[figures["group"]].append(figures["pass@1"])
    means = {group: _mean(values) for group, values in sorted(groups.items())}
    if {"code", "math"} <= means.keys():
        means["total"] = (means["code"] + means["math"]) / 2
    return means


def write(folder: Path, settings: Mapping[str, Any], suites: Mapping[str, Mapping[str, Any]]) -> Path:
    """Writes results.json, whole or not at all."""
    body = {"settings": settings, "averages": averages(suites), "suites": dict(sorted(suites.items()))}
    aside = folder / f".{RESULTS}.partial"
    try:
        aside.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(aside, folder / RESULTS)
    except OSError as error:
        raise UserError(
            f"{folder / RESULTS} cannot be written ({error.strerror}): free some space and start the same command again"
        ) from None
    return folder / RESULTS


def read(path: Path) -> dict[str, Any]:
    """The results of a directory or file. Raises UserError when there are none."""
    file = path / RESULTS if path.is_dir() else path
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        suites = body["suites"]
        if not all(isinstance(figures["scores"], dict) for figures in suites.values()):
            raise ValueError("no scores")
        return body
    except OSError:
        raise UserError(f"{path} has no {RESULTS}: give the `out` directory of a finished `azr-nemo eval`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file} is not what `azr-nemo eval` writes: give the `out` directory of a finished evaluation") from None


def table(suites: Mapping[str, Mapping[str, Any]]) -> Table:
    """For a terminal: pass@1 in percent with its interval, and what kept answers from being right."""
    shown = Table(Column("suite", no_wrap=True), "items", "pass@1 %", "95%", "cut off %", "tokens", "why not right", title="evaluation")
    for name, figures in suites.items():
        parts = "".join(f"\n{part} {100 * value:.1f}" for part, value in figures["parts"].items())
        why = ", ".join(f"{reason} {count}" for reason, count in Counter(figures["reasons"]).most_common(5) if reason != "right")
        of = "" if figures["items"] == figures["size"] else f" of {figures['size']}"
        shown.add_row(
            name, f"{figures['items']}{of}", f"{100 * figures['pass@1']:.1f}{parts}", f"{100 * figures['low']:.1f}–{100 * figures['high']:.1f}",
            f"{100 * figures['truncated']:.0f}", f"{figures['tokens']:.0f}", why,
        )  # fmt: skip
    for group, value in averages(suites).items():
        shown.add_row(f"{group} avg", "", f"{100 * value:.1f}", "", "", "", "")
    return shown


def _share(group: list[Mapping[str, Any]], part: str | None = None) -> float:
    return _mean(float(row["right"] if part is None else row["parts"].get(part, False)) for row in group)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
