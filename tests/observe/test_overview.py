"""The overview is the mean over the task types that were measured, and nothing where nothing was."""

import pytest

from azr_nemo.observe.overview import overview


def test_means_are_over_the_types_that_were_measured():
    metrics = {"propose/deduction/valid": 0.5, "propose/induction/valid": 1.0, "solve/abduction/accuracy": 0.25}
    assert overview(metrics) == {"overview/valid": 0.75, "overview/accuracy": 0.25}


def test_format_counts_both_roles_and_the_buffer_is_a_sum():
    metrics = {"propose/deduction/format": 0.0, "solve/deduction/format": 1.0, "buffer/deduction/size": 3.0, "buffer/abduction/size": 4.0}
    assert overview(metrics) == {"overview/format": 0.5, "overview/buffer": 7.0}


def test_held_out_is_the_mean_of_what_has_an_interval():
    metrics = {name + end: value for name, value in (("eval/deduction", 0.2), ("eval/math500", 0.6)) for end in ("", "_low", "_high")}
    assert overview({**metrics, "eval/other": 9.0}) == {"overview/held_out": pytest.approx(0.4)}
    assert overview({}) == {}
