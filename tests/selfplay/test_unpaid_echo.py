"""`reward.pay_echo=false`: an input that repeats the output earns nothing, wherever a run pays for it; examinations still count it as right."""

import pytest
from sample_tasks import adder, adder_task
from test_step import OPTIONS, completion, configured, drive, self_play

from azr_nemo.evaluation.in_training import HeldOut
from azr_nemo.selfplay.buffer import StoredTask
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.task import Task, TaskType

KEEPS = adder(0).removesuffix(" + 0")  # any input of it is its output
ABDUCTION = Task(TaskType.ABDUCTION, KEEPS, ("3",), ("3",))


def play_of(folder, pay_echo: bool, **selfplay) -> SelfPlay:
    config = configured(**selfplay)
    config.reward.pay_echo = pay_echo
    return self_play(folder, config)


def answered(play: SelfPlay, task: Task, *answers: str):
    row = play.solver.row(task, samples=len(answers))
    for sample, answer in enumerate(answers):
        row.receive(sample, completion(KINDS[task.type].answer_text(answer, OPTIONS), sample))
    return row


@pytest.mark.parametrize(
    ("pay_echo", "reasons", "rewards"), [(True, ["right", "wrong_value"], [1, -0.5]), (False, ["echo", "wrong_value"], [-0.5, -0.5])]
)
def test_a_right_input_that_repeats_the_output_is_paid_like_a_wrong_one(tmp_path, pay_echo, reasons, rewards):
    play = play_of(tmp_path, pay_echo)
    attempts = play.solver.attempts(answered(play, ABDUCTION, "3", "4"), ABDUCTION)
    assert [(a.outcome, a.reward) for a in attempts] == [*zip(reasons, rewards, strict=True)]


def test_other_right_inputs_are_paid_as_ever_and_so_is_an_output_that_was_asked_for(tmp_path):
    play = play_of(tmp_path, pay_echo=False)
    assert [v.reason for v in answered(play, adder_task(2, TaskType.ABDUCTION), "1", "3").outcomes()] == ["right", "echo"]
    deduction = Task(TaskType.DEDUCTION, KEEPS, ("3",), ("3",))
    assert [v.score for v in answered(play, deduction, "3").outcomes()] == [1]


def test_it_counts_as_unsolved_in_the_rates_that_tasks_and_proposals_go_by(tmp_path):
    solved = {}
    for pay_echo in (True, False):
        play = play_of(tmp_path / str(pay_echo), pay_echo)
        number = play.buffer.add(ABDUCTION, 0, seed=True)
        assert number
        stored = StoredTask(number, ABDUCTION, 0, True, (), 0, 0, 2)
        play.solver.record([(answered(play, ABDUCTION, "3", "3"), stored)])
        (after,) = (task for task in play.buffer.tasks(TaskType.ABDUCTION) if task.id == number)
        solved[pay_echo] = (after.solved, after.attempts)
    assert solved == {True: (2, 2), False: (0, 2)}


def test_a_known_answer_that_repeats_the_output_is_not_taught(tmp_path):
    for pay_echo in (True, False):
        play = play_of(tmp_path / str(pay_echo), pay_echo)
        known = play.solver.known(answered(play, ABDUCTION, "4"), StoredTask(1, ABDUCTION, 0, True, (), 0, 0, 2))
        assert (known is not None) is pay_echo


def test_held_out_accuracy_counts_it_as_right_all_the_same(tmp_path):
    play = play_of(tmp_path, pay_echo=False)
    evaluation = HeldOut([Task(TaskType.INDUCTION, KEEPS, ("3", "4"), ("3", "4"), "keeps")], play.solver)
    steps = evaluation.evaluate()
    next(steps)
    said = {TaskType.ABDUCTION: "outputs", TaskType.DEDUCTION: "outputs"}
    texts = [
        KINDS[task.type].answer_text(getattr(task, said[task.type])[0], OPTIONS) if task.type in said else "" for task in evaluation.tasks
    ]
    with pytest.raises(StopIteration) as stop:
        steps.send([[completion(text, 0)] for text in texts])
    metrics = stop.value.value
    assert (metrics["eval/abduction"], metrics["held_out/abduction/echo"], metrics["held_out/abduction/without_echo"]) == (1, 1, 0)


def test_a_step_whose_answers_repeat_nothing_is_the_same_with_and_without(tmp_path):
    first, second = (drive(play_of(tmp_path / str(paid), paid))[0] for paid in (True, False))
    assert [(a.outcome, a.reward) for a in first.attempts] == [(a.outcome, a.reward) for a in second.attempts]
