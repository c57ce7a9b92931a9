"""Which phases share a batch, what each schedule draws from, and what of a pipelined step outlives a kill."""

from dataclasses import replace

import pytest
from sample_tasks import FakeExecutor
from test_step import configured, proposals, self_play, solutions

from azr_nemo.errors import UserError
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Prompt, PromptBatch
from azr_nemo.selfplay.schedules import SCHEDULES, joined, together
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.tasks.marked import spans_of
from azr_nemo.tasks.task import PromptText, Role, TaskType


def scheduled(folder, schedule, **selfplay) -> SelfPlay:
    play = self_play(folder, configured(solve_from="previous", **selfplay))
    play.schedule = SCHEDULES[schedule]
    return play


def drive(play, number, version=0, answers=None, new=None):
    """Runs a step with canned completions, whose new tasks add `new`; answers: what was said to each batch, in the place of the canned ones."""
    step, asked, said = play.step(number), [], []
    try:
        batch = next(step)
        while True:
            asked.append(batch)
            said.append(answers[len(said)] if answers else canned(batch, version, new or 100 + len(said) + 10 * number))
            batch = step.send(said[-1])
    except StopIteration as stop:
        return stop.value, asked, said


def canned(batch, version, new):
    answers, start = [], 0
    for phase, count in batch.lanes:
        part = PromptBatch(batch.prompts[start : start + count], phase)
        answers += proposals(part.prompts) if phase == "propose" else solutions(part)
        start += count
    said = [[(c, c.text.replace("x + 100", f"x + {new}")) for c in group] for group in answers]
    return [[replace(completion, text=text, weight_version=version) for completion, text in group] for group in said]


def lanes(asked):
    return [[phase for phase, _ in batch.lanes] for batch in asked]


def test_merged_proposes_and_solves_in_one_batch(tmp_path):
    play = scheduled(tmp_path, "merged")
    _, asked, _ = drive(play, 1)
    assert lanes(asked) == [["propose", "solve"], ["estimate"]]
    assert [batch.phase for batch in asked] == ["sample", "estimate"]
    assert [count for _, count in asked[0].lanes] == [12, 12]
    result, _, _ = drive(play, 2)
    # Only now are the tasks of step 1 solved, as `previous` has it.
    assert {play.buffer.get(a.task_id).step for a in result.rollouts if a.phase == "solve"} == {0, 1}


def test_merged_proposes_and_earns_what_sequential_does(tmp_path):
    """What it does not: fill up the solver's tasks with those of this step."""
    results = [drive(scheduled(tmp_path / name, name), 1)[0] for name in ("sequential", "merged")]
    assert results[0].metrics == results[1].metrics
    proposed = [[a for a in result.rollouts if a.phase == "propose"] for result in results]
    assert proposed[0] == proposed[1]
    new = {a.task_id for a in proposed[1] if a.task_id is not None}
    assert not new & {a.task_id for a in results[1].rollouts if a.phase == "solve"}


def test_pipelined_has_one_batch_a_step_after_the_first(tmp_path):
    play = scheduled(tmp_path, "pipelined")
    assert lanes(drive(play, 1)[1]) == [["propose"], ["estimate", "solve", "propose"]]
    assert lanes(drive(play, 2)[1]) == [["estimate", "solve", "propose"]]


def test_of_a_pipelined_step_the_proposals_alone_are_older(tmp_path):
    play = scheduled(tmp_path, "pipelined", reuse_estimates=True)
    drive(play, 1, version=0)
    result, _, _ = drive(play, 2, version=1)
    assert {(a.phase, a.completion.weight_version) for a in result.attempts} == {("propose", 0), ("estimate", 1), ("solve", 1)}
    assert result.batch.versions.tolist() == [a.completion.weight_version for a in result.attempts]
    new = {kind: play.buffer.recent(kind, 2) for kind in TaskType}
    assert all(a.task_id in {stored.id for stored in new[a.prompt.type]} for a in result.rollouts if a.outcome.startswith("solve_rate"))


def test_a_task_that_was_stored_meanwhile_is_a_duplicate_for_the_proposals_in_flight(tmp_path):
    """Both steps' proposals are the same, so what step 1 stores is known when those of step 2 are judged."""
    play = scheduled(tmp_path, "pipelined", task_types=["deduction"])
    assert drive(play, 1, new=500)[0].metrics["refused/duplicate"] == 1
    assert drive(play, 2, new=500)[0].metrics["refused/duplicate"] == 2


def test_proposals_in_flight_are_in_the_buffers_backup_and_go_on_from_it_exactly(tmp_path):
    play = scheduled(tmp_path / "run", "pipelined")
    play.config.selfplay.composite.chance = 0.5
    drive(play, 1)
    play.buffer.backup(tmp_path / "backup.sqlite")
    expected, _, said = drive(play, 2, version=1)

    resumed = scheduled(tmp_path / "other", "pipelined")
    resumed.config.selfplay.composite.chance = 0.5
    buffer = TaskBuffer.restore(tmp_path / "backup.sqlite", tmp_path / "resumed.sqlite", 100)
    for part in (resumed, resumed.proposer, resumed.solver):
        part.buffer = buffer
    found, asked, _ = drive(resumed, 2, answers=said)
    assert len(asked) == 1, "nothing is sampled again"
    assert found.metrics == expected.metrics
    assert found.rollouts == expected.rollouts
    spans = [[spans_of(a.prompt.text.full) for a in result.rollouts] for result in (found, expected)]
    assert spans[0] == spans[1] != [()] * len(spans[1])  # data is data still
    assert found.batch.rollout_logprobs.tolist() == expected.batch.rollout_logprobs.tolist()
    assert buffer.tasks() == play.buffer.tasks()
    assert buffer.read_note("ahead") == play.buffer.read_note("ahead")


def test_proposals_that_were_made_for_another_step_are_made_anew(tmp_path):
    """A run that was pipelined, then sequential, then pipelined again."""
    play = scheduled(tmp_path, "pipelined")
    drive(play, 1)
    assert lanes(drive(play, 3)[1])[0] == ["propose"]


def test_a_sandbox_that_died_ends_a_pipelined_step_too(tmp_path):
    play = scheduled(tmp_path, "pipelined")
    drive(play, 1)
    play.proposer.validator.executor = FakeExecutor()
    play.ahead.take(2)[0].row.pending[0] = broken = play.ahead.take(2)[0].row.pending[0].__class__()
    broken.set_exception(RuntimeError("the sandbox is gone"))
    with pytest.raises(RuntimeError, match="the sandbox is gone"):
        drive(play, 2)


def asking(name, times):
    """A phase that asks `times` times for one prompt and returns what it was told."""
    told = []
    for number in range(times):
        answer = yield PromptBatch([Prompt(PromptText(f"{name}{number}"), Role.SOLVE, TaskType.DEDUCTION)], name)
        told += answer
    return told


def test_phases_of_unequal_length_run_side_by_side_and_return_in_their_order():
    phases = together(asking("a", 1), asking("b", 3), asking("c", 0))
    batches, answer = [], None
    try:
        while True:
            batch = phases.send(answer)
            batches.append([prompt.text.text for prompt in batch.prompts])
            answer = [[f"to {prompt.text.text}"] for prompt in batch.prompts]
    except StopIteration as stop:
        assert stop.value == [[["to a0"]], [["to b0"], ["to b1"], ["to b2"]], []]
    assert batches == [["a0", "b0"], ["b1"], ["b2"]]


def test_a_completion_of_a_joined_batch_is_announced_to_the_phase_that_asked_for_it():
    heard = []

    def batch(name, count):
        prompts = [Prompt(PromptText(name), Role.SOLVE, TaskType.DEDUCTION)] * count
        return PromptBatch(prompts, name, lambda index, sample, completion: heard.append((name, index, sample, completion)))

    both = joined([batch("a", 2), batch("b", 3)])
    assert both.lanes == (("a", 2), ("b", 3))
    for place in (4, 0, 1):
        both.on_completion(place, 7, f"completion {place}")
    assert heard == [("b", 2, 7, "completion 4"), ("a", 0, 7, "completion 0"), ("a", 1, 7, "completion 1")]
    assert joined([both]) is both


@pytest.mark.parametrize("schedule", ["merged", "pipelined"])
def test_a_solver_that_waits_for_this_steps_tasks_cannot_draw_before_they_are_there(schedule):
    for name in ("current", "recent", "mixed"):
        with pytest.raises(UserError, match=rf"selfplay\.solve_from={name} .* choose selfplay\.solve_from=previous, "):
            load_settings(["model=tiny", f"selfplay.schedule={schedule}", f"selfplay.solve_from={name}"])
    load_settings(["model=tiny", f"selfplay.schedule={schedule}", "selfplay.solve_from=previous"])
