"""Benchmarks whose answers are programs, or are about programs. Whatever a model wrote runs in the jail or not at all."""

from azr_nemo.evaluation.code.codeio import CODEIO_INPUT, CODEIO_OUTPUT
from azr_nemo.evaluation.code.evalplus import HUMANEVAL_PLUS, MBPP_PLUS
from azr_nemo.evaluation.code.humaneval import HUMANEVAL
from azr_nemo.evaluation.code.livecodebench import LIVECODEBENCH
from azr_nemo.evaluation.code.prediction import CRUXEVAL_INPUT, CRUXEVAL_OUTPUT, LCB_EXECUTION
from azr_nemo.evaluation.suite import Suite

CODE_SUITES: tuple[Suite, ...] = (HUMANEVAL, HUMANEVAL_PLUS, MBPP_PLUS, LIVECODEBENCH)
REASONING_SUITES: tuple[Suite, ...] = (CRUXEVAL_INPUT, CRUXEVAL_OUTPUT, CODEIO_INPUT, CODEIO_OUTPUT, LCB_EXECUTION)
