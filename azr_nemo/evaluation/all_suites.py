"""Every suite by its name, and the groups that `suite=` takes."""

from azr_nemo.evaluation.code import CODE_SUITES, REASONING_SUITES
from azr_nemo.evaluation.maths import MATH_SUITES
from azr_nemo.evaluation.suite import Suite

ALL: list[Suite] = [*REASONING_SUITES, *CODE_SUITES, *MATH_SUITES]
SUITES: dict[str, Suite] = {suite.name: suite for suite in ALL}


def groups() -> dict[str, list[str]]:
    """Names of suites by group; `all` first."""
    found = {"all": list(SUITES)}
    for suite in SUITES.values():
        found.setdefault(suite.group, []).append(suite.name)
    found["cruxeval"] = [name for name in SUITES if name.startswith("cruxeval")]
    return found
