"""What a run's latest numbers look like on a terminal: by task type on the left, the whole of it on the right."""

from collections.abc import Mapping

from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from azr_nemo.tasks.task import TaskType

BY_TYPE = (
    ("valid proposals", "propose/{}/valid", "{:.0%}"),
    ("learnable", "propose/{}/learnable", "{:.0%}"),
    ("answers right", "solve/{}/accuracy", "{:.0%}"),
    ("held out", "eval/{}", "{:.0%}"),
    ("tasks in the buffer", "buffer/{}/size", "{:,.0f}"),
)
OVERALL = (
    ("generated", "throughput/generated_tokens_per_s", "{:,.0f} tokens/s"),
    ("trained", "throughput/trained_tokens_per_s", "{:,.0f} tokens/s"),
    ("executed", "throughput/programs_per_s", "{:,.0f} programs/s"),
    ("memory", "memory/peak_rss_gib", "{:.1f} GiB"),
    ("memory, GPU", "memory/peak_gpu_gib", "{:.1f} GiB"),
    ("entropy", "train/entropy", "{:.3f} nats"),
)
ALARM = "alarm/"


def run_panel(metrics: Mapping[str, float]) -> Panel:
    """metrics: the latest known value of each name of docs/metrics.md. – stands for a missing one; alarms that are up are named below."""
    types = Table.grid(Column(style="dim"), *(Column(justify="right") for _ in TaskType), padding=(0, 2, 0, 0))
    types.add_row("", *(Text(kind.value, style="bold") for kind in TaskType))
    for label, pattern, number in BY_TYPE:
        types.add_row(label, *(_number(metrics, pattern.format(kind.value), number) for kind in TaskType))
    overall = Table.grid(Column(style="dim"), Column(), padding=(0, 2, 0, 0))
    for label, name, number in OVERALL:
        if name in metrics or "gpu" not in name:
            overall.add_row(label, _number(metrics, name, number))
    both = Table.grid(padding=(0, 3, 0, 0))
    both.add_row(types, overall)
    up = [name.removeprefix(ALARM).replace("_", " ") for name, value in metrics.items() if name.startswith(ALARM) and value]
    return Panel(
        both,
        title=Text("latest step", style="bold"),
        title_align="left",
        subtitle=Text(f"alarm: {', '.join(up)}", style="bold red") if up else None,
        subtitle_align="left",
        border_style="red" if up else "blue",
        expand=False,
    )


def _number(metrics: Mapping[str, float], name: str, number: str) -> str:
    return number.format(metrics[name]) if name in metrics else "–"
