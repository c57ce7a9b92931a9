"""A report as named blocks of JSON: an overview, and for each run its metrics, its tasks and, in portions, the answers to them.

The page holds them in itself or, while it is live, fetches those that have changed. All text in them is data, whoever wrote it.
"""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from azr_nemo.observe.pictures import RUNS, colours
from azr_nemo.observe.report.attempts import LONGEST, Attempt, Tried, shortened
from azr_nemo.observe.report.charts import held_out, sections
from azr_nemo.observe.report.figures import Json, verdicts
from azr_nemo.observe.report.read import TASKS, Run, TaskRow, thinned

PORTION = 200  # ids of tasks whose answers are in one block
PROGRAM, VALUE, PAIRS = 8000, 1000, 20  # longest program and longest input or output, in characters; most pairs of a task
ANSWERS = 24_000_000  # characters of answers in a page; where they are more, each is cut until they fit
CUTS = (LONGEST, 2000, 1000, 500, 250)


def blocks(runs: Sequence[Run], live: bool = False) -> dict[str, str]:
    """By name, each as JSON that is safe inside a script element (`embeddable`)."""
    limit = _cut(runs)
    made: dict[str, Any] = {"overview": _overview(runs, live, limit)}
    for place, run in enumerate(runs):
        made[f"metrics-{place}"] = {name: [s.steps, s.values] for name, s in ((n, thinned(s)) for n, s in run.series.items())}
        shown = run.tasks[-TASKS:]
        made[f"tasks-{place}"] = [_task(task) for task in shown]
        portions: dict[int, Json] = {}
        for task in shown:
            portions.setdefault(task.id // PORTION, {})[str(task.id)] = _details(task, run.tried.get(task.id, Tried()), limit)
        made |= {f"answers-{place}-{portion}": content for portion, content in portions.items()}
    return {name: embeddable(content) for name, content in made.items()}


def embeddable(content: Any) -> str:
    """JSON in ASCII in which nothing can end a script element or begin a comment or an entity; nan and infinities become null."""
    try:
        text = _json(content)
    except ValueError:  # a number that is not finite, which is rare; looking for one in everything takes longer than all the rest
        text = _json(_finite(content))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _overview(runs: Sequence[Run], live: bool, limit: int) -> Json:
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "by": f"azr-nemo {version('azr-nemo')}",
        "live": live,
        "portion": PORTION,
        "types": {kind.value: colour for kind, colour in colours().items()},
        "runs": [_run(run, place, limit) for place, run in enumerate(runs)],
        "differences": differences([run.config for run in runs]),
        "held_out": held_out(runs),
        "sections": sections(runs),
    }


def _run(run: Run, place: int, limit: int) -> Json:
    notes = [*_alarms(run), *run.notes]
    if not any(name.startswith("eval/") for name in run.series):
        notes.insert(0, "Held-out accuracy was not measured, so nobody can say whether it learned: set eval.items.")
    if len(run.tasks) > TASKS:
        notes.append(f"Of {len(run.tasks):,} tasks the newest {TASKS:,} are shown.")
    known = {task.id for task in run.tasks}
    if gone := len(run.tried.keys() - known):
        notes.append(f"{gone:,} tasks that the rollouts name are no longer in the buffer and are not shown.")
    if limit < LONGEST:
        notes.append(f"The answers are many, so each is cut to {limit:,} characters.")
    seconds = run.series["step/seconds"].at()
    return {
        "name": run.name,
        "directory": str(run.directory),
        "colour": RUNS[place % len(RUNS)],
        "step": run.last_step,
        "seconds": sum(seconds.values()),
        "outcome": run.outcome,
        "tasks": len(run.tasks),
        "answers": sum(tried.outcomes.total() for tried in run.tried.values()),
        "verdicts": verdicts(run),
        "notes": notes,
        "config": run.config,
        "versions": run.versions,
    }


def _alarms(run: Run) -> list[str]:
    """A sentence for each of the run's alarms (`alarm/NAME`, docs/metrics.md) that was ever up."""
    up = {name: [step for step, value in run.series[name].at().items() if value] for name in run.series if name.startswith("alarm/")}
    return [f"{name} was up at {len(steps)} of {run.last_step} steps, first at step {steps[0]:g}." for name, steps in up.items() if steps]


def differences(configs: Sequence[str]) -> list[list[str]]:
    """[setting, value in each run] of the settings that are not the same in all runs; run_dir, which never is, left out."""
    flat = [_flat(text) for text in configs]
    names = dict.fromkeys(name for settings in flat for name in settings if name != "run_dir")
    rows = [[name, *(settings.get(name, "") for settings in flat)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(text: str) -> dict[str, str]:
    def leaves(prefix: str, value: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            return {prefix: "" if value is None else str(value)}
        return {name: leaf for key, item in value.items() for name, leaf in leaves(f"{prefix}.{key}".lstrip("."), item).items()}

    try:
        return leaves("", OmegaConf.to_container(OmegaConf.create(text))) if text else {}
    except (OmegaConfBaseException, YAMLError):
        return {}


def _task(task: TaskRow) -> Json:
    """What the list shows, filters and searches."""
    pairs = list(zip(task.inputs, task.outputs, strict=False))
    return {
        "id": task.id,
        "type": task.type.value,
        "step": task.step,
        "seed": task.is_seed,
        "lines": task.lines,
        "attempts": task.attempts,
        "solved": task.solved,
        "program": shortened(task.program, PROGRAM),
        "pairs": [[shortened(given, VALUE), shortened(result, VALUE)] for given, result in pairs[:PAIRS]],
        "more": max(0, len(pairs) - PAIRS),
        "message": shortened(task.message, VALUE),
        "references": task.references,
    }


def _details(task: TaskRow, tried: Tried, limit: int) -> Json:
    """What is shown of a task once it is opened."""
    return {
        "thought": shortened(task.thought, limit),
        "proposal": _attempt(tried.proposal, limit) if tried.proposal else None,
        "answers": [_attempt(attempt, limit) for attempt in tried.answers],
        "left_out": tried.left_out,
        "outcomes": dict(tried.outcomes.most_common()),
    }


def _attempt(attempt: Attempt, limit: int) -> Json:
    return {
        "step": attempt.step,
        "phase": attempt.phase,
        "outcome": attempt.outcome,
        "reward": attempt.reward,
        "advantage": attempt.advantage,
        "tokens": attempt.tokens,
        "text": shortened(attempt.completion, limit, attempt.length),
    }


def _cut(runs: Sequence[Run]) -> int:
    lengths = [len(a.completion) for r in runs for t in r.tried.values() for a in [*t.answers, *([t.proposal] if t.proposal else [])]]
    return next((cut for cut in CUTS if sum(min(cut, length) for length in lengths) <= ANSWERS), CUTS[-1])


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
