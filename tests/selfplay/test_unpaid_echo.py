"""`reward.echo`: an input that repeats the output need not be right, nor be trained on, wherever a run pays for it; examinations count it as ever."""

from random import Random

import pytest
from sample_tasks import adder, adder_task
from test_step import OPTIONS, completion, configured, drive, self_play, solution

from azr_nemo.evaluation.in_training import HeldOut
from azr_nemo.selfplay.buffer import StoredTask
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import tagged
from azr_nemo.tasks.task import Role, Task, TaskType

KEEPS = adder(0).removesuffix(" + 0")  # any input of it is its output
ABDUCTION = Task(TaskType.ABDUCTION, KEEPS, ("3",), ("3",))


def play_of(folder, echo: str, **selfplay) -> SelfPlay:
    config = configured(**selfplay)
    config.reward.echo = echo
    return self_play(folder, config)


def answered(play: SelfPlay, task: Task, *answers: str):
    row = play.solver.row(task, samples=len(answers))
    for sample, answer in enumerate(answers):
        row.receive(sample, completion(KINDS[task.type].answer_text(answer, OPTIONS), sample))
    return row


@pytest.mark.parametrize(("echo", "outcome", "reward"), [("right", "right", 1), ("wrong", "echo", -0.5), ("left_out", "echo", -0.5)])
def test_a_right_input_that_repeats_the_output_is_right_only_where_that_is_said(tmp_path, echo, outcome, reward):
    play = play_of(tmp_path, echo)
    attempts = play.solver.attempts(answered(play, ABDUCTION, "3", "4"), ABDUCTION)
    assert [(a.outcome, a.reward) for a in attempts] == [(outcome, reward), ("wrong_value", -0.5)]
    assert len(play.solver.trained(attempts)) == (1 if echo == "left_out" else 2)


def test_where_all_answers_are_echoes_there_is_still_a_batch_that_teaches_nothing(tmp_path):
    play = play_of(tmp_path, "left_out")
    attempts = play.solver.attempts(answered(play, ABDUCTION, "3", "3"), ABDUCTION)
    assert play.solver.trained(attempts) == attempts
    assert {a.reward for a in attempts} == {-0.5}


def test_what_is_left_out_of_a_step_is_the_echoes_alone(tmp_path):
    """Of two answers to a task one is right and the other its output: where that is left out, no task has answers that earned differently."""
    outcomes = {}
    for echo in ("wrong", "left_out"):
        step, answer = play_of(tmp_path / echo, echo, task_types=["abduction"], train_propose=False, solve_samples=2).step(1), None
        while True:
            try:
                batch = step.send(answer)
            except StopIteration as stop:
                result = stop.value
                break
            answer = [[completion(said(prompt, k), k) for k in range(prompt.samples)] for prompt in batch.prompts]
        assert result.metrics["solve/abduction/spread"] == (1 if echo == "wrong" else 0)
        outcomes[echo] = [(a.outcome, a.reward) for a in result.attempts]
        assert any(a.outcome == "echo" for a in result.rollouts)
    assert ("echo", -0.5) in outcomes["wrong"]
    assert outcomes["left_out"] == [row for row in outcomes["wrong"] if row[0] != "echo"] != []


def said(prompt, sample: int) -> str:
    if prompt.role is Role.PROPOSE:
        return "no fence"
    output = tagged(prompt.text.full, "output")[0]
    return KINDS[prompt.type].answer_text(output if sample % 2 else solution(prompt), OPTIONS)


def test_other_right_inputs_are_paid_as_ever_and_so_is_an_output_that_was_asked_for(tmp_path):
    play = play_of(tmp_path, "wrong")
    assert [v.reason for v in answered(play, adder_task(2, TaskType.ABDUCTION), "1", "3").outcomes()] == ["right", "echo"]
    deduction = Task(TaskType.DEDUCTION, KEEPS, ("3",), ("3",))
    assert [v.score for v in answered(play, deduction, "3").outcomes()] == [1]


def test_it_counts_as_unsolved_in_the_rates_that_tasks_and_proposals_go_by(tmp_path):
    solved = {}
    for echo in ("right", "wrong", "left_out"):
        play = play_of(tmp_path / echo, echo)
        number = play.buffer.add(ABDUCTION, 0, seed=True)
        assert number
        stored = StoredTask(number, ABDUCTION, 0, True, (), 0, 0, 2)
        play.solver.record([(answered(play, ABDUCTION, "3", "3"), stored)])
        (after,) = (task for task in play.buffer.tasks(TaskType.ABDUCTION) if task.id == number)
        solved[echo] = (after.solved, after.attempts)
    assert solved == {"right": (2, 2), "wrong": (0, 2), "left_out": (0, 2)}


def test_a_task_whose_answers_differ_by_echoes_alone_teaches_nothing_where_they_are_left_out(tmp_path):
    """Dynamic sampling has another one take its place."""
    drawn = {}
    for echo in ("wrong", "left_out"):
        play = play_of(tmp_path / echo, echo, task_types=["abduction"], batch_size=2, solve_samples=2)
        stored = play.buffer.tasks(TaskType.ABDUCTION)[0]
        solved = [(answered(play, stored.task, stored.task.input, stored.task.output), stored)]
        drawn[echo] = len(play.solver.draw(1, Random(1), solved))
    assert drawn == {"wrong": 0, "left_out": 1}


def test_a_known_answer_that_repeats_the_output_is_not_taught(tmp_path):
    for echo in ("right", "wrong", "left_out"):
        play = play_of(tmp_path / echo, echo)
        known = play.solver.known(answered(play, ABDUCTION, "4"), StoredTask(1, ABDUCTION, 0, True, (), 0, 0, 2))
        assert (known is not None) is (echo == "right")


def test_held_out_accuracy_counts_it_as_right_all_the_same(tmp_path):
    play = play_of(tmp_path, "wrong")
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
    first, second = (drive(play_of(tmp_path / echo, echo))[0] for echo in ("right", "left_out"))
    assert [(a.outcome, a.reward) for a in first.attempts] == [(a.outcome, a.reward) for a in second.attempts]
