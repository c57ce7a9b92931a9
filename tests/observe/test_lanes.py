"""Lanes of a step: who was at work when, in text, on disk and after a kill."""

import pytest

from azr_nemo.errors import UserError
from azr_nemo.observe.lanes import FILE, Lanes, Span, append_lanes, lanes_text, ordered, read_lanes, rewind_lanes

SPANS = [Span("solve", 0.0, 4.0), Span("propose", 0.0, 8.0), Span("update", 8.0, 10.0)]


def test_spans_count_from_the_begin_of_their_step():
    times = iter([100.0, 110.0])
    lanes = Lanes(lambda: next(times))
    lanes.add("propose", 101.0, 104.0)
    assert lanes.lap() == [Span("propose", 1.0, 4.0)]
    lanes.add("update", 112.0, 113.0)
    assert lanes._spans == [Span("update", 2.0, 3.0)]


def test_lanes_are_told_in_the_order_of_a_step_with_gaps_where_they_wait():
    assert ordered([*SPANS, Span("evaluate", 10, 11)]) == ["propose", "solve", "update", "evaluate"]
    assert lanes_text(SPANS, width=10).splitlines() == [
        "propose ████████·· 8.0 s",
        "  solve ████······ 4.0 s",
        " update ········██ 2.0 s",
    ]
    assert lanes_text([]) == ""


def test_a_resumed_run_drops_the_lanes_of_steps_that_it_does_again_and_a_line_that_a_kill_has_cut(tmp_path):
    for step in (1, 2, 3):
        append_lanes(tmp_path, step, SPANS)
    with (tmp_path / FILE).open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "sp')
    rewind_lanes(tmp_path, 2)
    append_lanes(tmp_path, 3, SPANS[:1])
    assert read_lanes(tmp_path) == {1: SPANS, 2: SPANS, 3: SPANS[:1]}


def test_a_run_without_the_file_has_no_lanes_and_a_damaged_one_says_which_line(tmp_path):
    rewind_lanes(tmp_path, 1)
    assert read_lanes(tmp_path) == {}
    (tmp_path / FILE).write_text('{"step": 1, "spans": []}\nno json\n')
    with pytest.raises(UserError, match="line 2"):
        read_lanes(tmp_path)


def test_lanes_that_cannot_be_written_end_the_run_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"lanes\.jsonl cannot be written"):
        append_lanes(tmp_path / "nowhere", 1, SPANS)
