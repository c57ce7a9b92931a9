"""One line of the doctor's report."""

from dataclasses import dataclass
from enum import StrEnum

from rich.markup import escape
from rich.table import Table


class State(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


STYLES = {State.OK: "green", State.WARNING: "yellow", State.ERROR: "bold red"}


@dataclass(frozen=True)
class Finding:
    """what: the part that was looked at. found: what is there. mend: what to do, where it is not ok."""

    what: str
    found: str
    state: State = State.OK
    mend: str = ""


def warning(what: str, found: str, mend: str) -> Finding:
    return Finding(what, found, State.WARNING, mend)


def error(what: str, found: str, mend: str) -> Finding:
    return Finding(what, found, State.ERROR, mend)


def table(findings: list[Finding]) -> Table:
    """The report as it is printed."""
    made = Table("what", "", "found", title="azr-nemo doctor")
    for finding in findings:
        style = STYLES[finding.state]
        mend = f"\n[{style}]to mend:[/{style}] {escape(finding.mend)}" if finding.mend else ""
        made.add_row(escape(finding.what), f"[{style}]{finding.state}[/{style}]", escape(finding.found) + mend)
    return made
