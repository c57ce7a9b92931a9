"""Outputs are compared as EvalPlus compares them."""

import pytest

from azr_nemo.evaluation.code import same_output
from azr_nemo.evaluation.code.evalplus import typed
from azr_nemo.evaluation.code.same_output import equal, right


@pytest.mark.parametrize(
    ("found", "expected", "atol", "same"),
    [
        ("1", "1.0", 0, True),
        ("True", "1", 0, True),
        ("[1, 2]", "(1, 2)", 0, False),
        ("0.30000000000000004", "0.3", 0, True),
        ("0.301", "0.3", 0, False),
        ("[0.1, 0.2000000001]", "[0.1, 0.2]", 0, True),
        ("[1, 0.2000000001]", "[1, 0.2]", 0, False),
        ("[1, 0.2000000001]", "[1, 0.2]", 1e-4, True),
        ("0.30005", "0.3", 1e-4, True),
        ("0", "0.00001", 1e-4, False),  # an int is not near a float
        ("[0.3]", "(0.3,)", 1e-4, False),  # nor a list a tuple
        ("[0.3, 0.3]", "[0.3]", 1e-4, False),
        ("1e999", "1e999", 1e-4, True),
        ("1e999", "1.0", 1e-4, False),
        ("1.0", "1e999", 1e-4, False),
        ("-1e999", "1e999", 1e-4, False),
        ("'a'", "'b'", 1e-4, False),
        ("(1.00001+2j)", "(1+2j)", 1e-4, True),
        ("not a literal", "1", 0, False),
        ("sha256:00", "sha256:11", 1e-4, False),
        ("sha256:00", "sha256:00", 0, True),
        ("[" * 500 + "]" * 500, "1", 1e-4, False),
        (f"1{'0' * 400}", "1.5", 1e-4, False),
    ],
)
def test_outputs_are_right_when_equal_or_near(found, expected, atol, same):
    assert right(found, expected, atol) is same


def test_livecodebench_knows_no_tolerance():
    assert equal("[1, 2]", "[1.0, 2]")
    assert not equal("0.30000000000000004", "0.3")
    assert not equal("nothing", "0.3")


@pytest.mark.parametrize(
    ("oracle", "arguments", "found", "good"),
    [
        ("find_zero", "[1, 2]", "-0.5", True),
        ("find_zero", "[1, 2]", "-0.4", False),
        ("find_zero", "[1, 2]", "'x'", False),
        ("find_zero", "[1, 2]", "1e999", False),
        ("sum_div", "8", "0", True),
        ("sum_div", "8", "1", False),
        ("surface_Area", "3, 4", "35", True),
        ("surface_Area", "3, 4", "36", False),
        ("digit_distance_nums", "1, 256", "12", True),
        ("digit_distance_nums", "1, 256", "13", False),
    ],
)
def test_oracles_know_other_right_outputs(oracle, arguments, found, good):
    assert right(found, "'canonical'", 1e-4, oracle, arguments) is good


def test_tables_are_those_of_evalplus(public_rows):
    data = pytest.importorskip("evalplus.data.mbpp", reason="evalplus is not installed: nothing to compare with")
    special = pytest.importorskip("evalplus.eval._special_oracle")
    assert list(same_output.NOT_NONE) == special.MBPP_OUTPUT_NOT_NONE_TASKS
    assert list(same_output.AS_SETS) == special.MBPP_OUTPUT_SET_EQ_TASKS
    for row in public_rows("MbppPlus.jsonl"):
        for key in ("base_input", "plus_input"):
            theirs = data.mbpp_deserialize_inputs(row["task_id"], row[key])
            assert [repr(list(given)) for given in theirs] == [repr(typed(row["task_id"], given)) for given in row[key]]


def test_the_file_is_given_its_types_back():
    assert typed("Mbpp/2", [[1], [2]]) == [(1,), (2,)]
    assert typed("Mbpp/722", [{"a": [1, 2]}, 3, 4]) == [{"a": (1, 2)}, 3, 4]
    assert typed("Mbpp/115", [[[1], [], {}]]) == [[{1}, {}, {}]]
    assert typed("Mbpp/124", ["0", "1j"]) == [0.0, 1j]
    assert typed("Mbpp/3", [[1]]) == [[1]]
