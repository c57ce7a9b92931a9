"""Competition and textbook mathematics: one exact answer each, compared as mathematics and not as text."""

from azr_nemo.evaluation.maths.competitions import MATH_SUITES

__all__ = ["MATH_SUITES"]
