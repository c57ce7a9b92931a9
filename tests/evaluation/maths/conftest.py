"""One grader for the tests of maths, as long as math-verify is installed."""

import pytest

from azr_nemo.evaluation.maths.grader import MathGrader
from azr_nemo.evaluation.suite import Tools
from azr_nemo.sandbox.executor import Executor


class NoExecutor(Executor):
    """Maths runs no program."""


@pytest.fixture(scope="session")
def grader():
    pytest.importorskip("math_verify")
    with MathGrader() as grader:
        yield grader


@pytest.fixture(scope="session")
def tools(grader):
    return Tools(NoExecutor(), grader)
