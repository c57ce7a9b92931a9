"""A whole step with canned completions: who earns what, what is trained on, and what a resumed run repeats."""

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import count

import pytest
import torch
from sample_tasks import FakeExecutor, adder, adder_task

from azr_nemo.algorithms.estimators import ESTIMATORS
from azr_nemo.errors import UserError
from azr_nemo.rewards.intrinsic.registry import BUILT_IN
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits
from azr_nemo.selfplay.buffer import StoredTask, TaskBuffer
from azr_nemo.selfplay.exchange import Completion, groups
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.step import SelfPlay
from azr_nemo.selfplay.validation import Validator, Verifier
from azr_nemo.settings.schema import IntrinsicConfig, RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import tagged
from azr_nemo.tasks.task import PromptOptions, Proposal, Role, Task, TaskType

OPTIONS = PromptOptions(style="completion", pairs=4)
SEEDS = range(1, 7)


def configured(**selfplay) -> RunConfig:
    config = RunConfig()
    config.selfplay.batch_size, config.selfplay.references, config.selfplay.induction_pairs = 4, 2, 4
    config.selfplay.prompt_style = "completion"
    config.rollout.estimate_samples = 2
    for name, value in selfplay.items():
        setattr(config.selfplay, name, value)
    return config


def self_play(folder, config=None, executor=None) -> SelfPlay:
    config, executor = config or configured(), executor or FakeExecutor()
    folder.mkdir(exist_ok=True)
    buffer = TaskBuffer(folder / "tasks.db", 100)
    for kind in TaskType:
        for number in SEEDS:
            buffer.add(adder_task(number, kind), 0, seed=True)
    proposer = Proposer(buffer, Validator(executor, Limits()), OPTIONS, config, lambda text: True)
    return SelfPlay(
        proposer, Solver(buffer, Verifier(executor, Limits()), OPTIONS, config, lambda text: True, lambda text: [*map(ord, text), 0])
    )


def completion(text: str, row: int, finished: bool = True) -> Completion:
    length = 3 + row % 3
    return Completion(text, (1, 2), tuple(range(length)), (-0.5,) * length, finished)


def proposals(prompts) -> list[list[Completion]]:
    """Of each type: a new task, one that the buffer has, something unreadable, and a response cut off."""
    answers, seen = [], {kind: count() for kind in TaskType}
    for prompt in prompts:
        kind, row = prompt.type, next(seen[prompt.type])
        if kind is TaskType.INDUCTION:
            (program,) = tagged(prompt.text.text, "python")
            inputs = ("11", "12", "13", "14") if row == 0 else ("1", "2", "3", "4")
        else:
            program, inputs = (adder(100), ("1",)) if row == 0 else (adder(1), ("1",))
        text = "no fence" if row == 2 else KINDS[kind].proposal_text(Proposal(kind, program, inputs), OPTIONS)
        answers.append([completion(text, row, finished=row != 3)])
    return answers


def solution(prompt) -> str:
    """The right answer, worked out from the prompt alone."""
    text = prompt.text.full
    if prompt.type is TaskType.INDUCTION:
        return adder(int(tagged(text, "output")[0]) - int(tagged(text, "input")[0]))
    number = int(re.search(r"x \+ (\d+)", text)[1])
    if prompt.type is TaskType.DEDUCTION:
        return str(int(tagged(text, "input")[0]) + number)
    return str(int(tagged(text, "output")[0]) - number)


def solutions(batch) -> list[list[Completion]]:
    """Estimates: right, wrong, right, ... Solutions of each type: right, wrong, unreadable, cut off."""
    answers, seen = [], {kind: count() for kind in TaskType}
    for prompt in batch.prompts:
        right = KINDS[prompt.type].answer_text(solution(prompt), OPTIONS)
        wrong = KINDS[prompt.type].answer_text(adder(999) if prompt.type is TaskType.INDUCTION else "999", OPTIONS)
        if batch.phase == "estimate":
            answers.append([completion(right if k % 2 == 0 else wrong, k) for k in range(prompt.samples)])
        else:
            rows = [next(seen[prompt.type]) for _ in range(prompt.samples)]
            answers.append([completion([right, wrong, "no fence", right][row % 4], row, finished=row % 4 != 3) for row in rows])
    return answers


def drive(play: SelfPlay, number: int = 1, early: bool = False):
    """Runs a step to its end; early: completions are announced one by one, in reverse, before they are sent together."""
    step, asked, answer = play.step(number), [], None
    while True:
        try:
            batch = step.send(answer)
        except StopIteration as stop:
            return stop.value, asked
        asked.append((batch.phase, [prompt.text.full for prompt in batch.prompts]))
        answer = proposals(batch.prompts) if batch.phase == "propose" else solutions(batch)
        if early:
            for i in reversed(range(len(answer))):
                for k in reversed(range(len(answer[i]))):
                    batch.on_completion(i, k, answer[i][k])


def rewards(result, role: Role, kind: TaskType) -> list[float]:
    return sorted(a.reward for a in result.attempts if (a.prompt.role, a.prompt.type) == (role, kind))


def test_every_group_has_rows_with_the_configured_rewards(tmp_path):
    result, asked = drive(self_play(tmp_path))
    assert [phase for phase, _ in asked] == ["propose", "estimate", "solve"]
    for kind in TaskType:
        # learnable at one half; a duplicate; malformed; truncated
        assert rewards(result, Role.PROPOSE, kind) == [-1.0, -1.0, -0.5, 0.5]
        assert rewards(result, Role.SOLVE, kind) == [-1.0, -1.0, -0.5, 1.0]
    assert result.batch.groups.tolist() == [group for group in range(len(groups())) for _ in range(4)]
    assert result.batch.rewards.tolist() == [attempt.reward for attempt in result.attempts]


def test_advantages_average_to_zero_over_the_tokens_of_each_group(tmp_path):
    batch = drive(self_play(tmp_path))[0].batch
    assert batch.advantages.shape == batch.mask.shape == batch.rollout_logprobs.shape == (24, 5)
    assert batch.mask.sum(dim=1).tolist() == [len(ids) for ids in batch.response_ids]
    assert not batch.advantages[batch.mask == 0].any()
    for group in range(len(groups())):
        rows = batch.groups == group
        assert batch.advantages[rows].abs().max() > 0.1
        assert batch.advantages[rows].sum().abs() < 1e-4


def test_truncated_responses_are_trained_on_as_malformed(tmp_path):
    result, _ = drive(self_play(tmp_path))
    cut = [attempt for attempt in result.attempts if not attempt.completion.finished]
    assert len(cut) == 6
    assert {(attempt.reward, attempt.outcome) for attempt in cut} == {(-1.0, "truncated")}


def test_new_tasks_enter_the_buffer_with_their_references_and_solve_rates(tmp_path):
    play = self_play(tmp_path)
    drive(play, number=7)
    for kind in TaskType:
        (stored,) = play.buffer.recent(kind, 7)
        assert len(stored.references) == (1 if kind is TaskType.INDUCTION else 2)
        assert stored.attempts == 3  # two estimates and the step's own solution
        assert stored.solved == 2
        assert play.buffer.count(kind) == len(SEEDS) + 1


def test_the_same_task_proposed_twice_in_a_batch_is_a_duplicate(tmp_path):
    play = self_play(tmp_path)
    step = play.step(1)
    batch = next(step)
    text = KINDS[TaskType.DEDUCTION].proposal_text(Proposal(TaskType.DEDUCTION, adder(50), ("1",)), OPTIONS)
    answers = [[completion(text if p.type is TaskType.DEDUCTION else "no", 0)] for p in batch.prompts]
    assert len(step.send(answers).prompts) == 1


def test_a_program_that_fails_earns_the_penalty_of_an_invalid_one(tmp_path):
    config = configured(task_types=["deduction"])
    config.reward.invalid = -0.75
    play = self_play(tmp_path, config)
    step = play.step(1)
    batch = next(step)
    text = KINDS[TaskType.DEDUCTION].proposal_text(Proposal(TaskType.DEDUCTION, "def f(x):\n    return oh", ("1",)), OPTIONS)
    solve = step.send([[completion(text, 0)] for _ in batch.prompts])
    assert solve.phase == "solve"  # nothing to estimate
    with pytest.raises(StopIteration) as stop:
        step.send(solutions(solve))
    assert rewards(stop.value.value, Role.PROPOSE, TaskType.DEDUCTION) == [-0.75] * 4
    assert stop.value.value.metrics["refused/error"] == 4


def test_a_repeated_step_asks_the_same_and_another_step_something_else(tmp_path):
    first, again, other = (drive(self_play(tmp_path / name), number)[1] for name, number in (("a", 3), ("b", 3), ("c", 4)))
    assert first == again
    assert first != other


def test_it_does_not_matter_whether_completions_are_announced_early(tmp_path):
    executors = FakeExecutor(), FakeExecutor()
    late, _ = drive(self_play(tmp_path / "a", executor=executors[0]))
    early, _ = drive(self_play(tmp_path / "b", executor=executors[1]), early=True)
    assert len(executors[0].requests) == len(executors[1].requests)  # each completion is run once
    assert [(a.reward, a.outcome, a.completion) for a in late.attempts] == [(a.reward, a.outcome, a.completion) for a in early.attempts]
    assert torch.equal(late.batch.advantages, early.batch.advantages)
    assert late.metrics == early.metrics


def test_a_dead_sandbox_ends_the_step_and_stores_nothing(tmp_path):
    def dead(request):
        raise ExecutorUnavailable("gone")

    play = self_play(tmp_path, executor=FakeExecutor(dead))
    with pytest.raises(ExecutorUnavailable):
        drive(play)
    assert play.buffer.count() == 3 * len(SEEDS)


def test_each_setting_of_what_is_trained_on_changes_the_rows(tmp_path):
    without, _ = drive(self_play(tmp_path / "a", configured(train_propose=False)))
    assert {attempt.prompt.role for attempt in without.attempts} == {Role.SOLVE}
    reused, _ = drive(self_play(tmp_path / "b", configured(reuse_estimates=True)))
    assert len(reused.attempts) == 24 + 3 * 2
    plain, _ = drive(self_play(tmp_path / "c"))
    halved, _ = drive(self_play(tmp_path / "d", configured(proposer_weight=0.5)))
    scale = halved.batch.advantages / plain.batch.advantages.where(plain.batch.advantages != 0, torch.tensor(float("nan")))
    assert torch.allclose(scale[:12].nanmean(), torch.tensor(0.5))
    assert torch.allclose(scale[12:].nanmean(), torch.tensor(1.0))


def test_there_may_be_fewer_or_more_proposals_than_answers(tmp_path):
    for number in (2, 7):
        result, asked = drive(self_play(tmp_path / str(number), configured(proposals=number)))
        assert len(dict(asked)["propose"]) == 3 * number
        assert len(dict(asked)["solve"]) == 3 * 4
        assert len(result.attempts) == configured(proposals=number).selfplay.rows == 3 * (number + 4)


def test_what_no_answer_solved_is_answered_as_it_is_known(tmp_path):
    plain, _ = drive(self_play(tmp_path / "plain"))
    result, _ = drive(self_play(tmp_path / "known", configured(known_answers=True)))
    known = [attempt for attempt in result.attempts if attempt.outcome == "known"]
    assert Counter(attempt.prompt.type for attempt in known) == dict.fromkeys(TaskType, 3)  # of four tasks one was solved
    for attempt in known:
        text = KINDS[attempt.prompt.type].answer_text(solution(attempt.prompt), OPTIONS)
        assert (attempt.completion.text, attempt.completion.response_ids) == (text, (*map(ord, text), 0))
        assert attempt.reward == 1
    others = [attempt for attempt in result.attempts if attempt not in known]
    assert [(a.completion.text, a.reward) for a in others] == [(a.completion.text, a.reward) for a in plain.attempts]
    assert not any(attempt.outcome == "known" for attempt in result.rollouts)  # the model did not say it
    changed = {name for name, value in plain.metrics.items() if result.metrics[name] != value}
    assert changed == {"train/rows"}
    unsampled = result.batch.rollout_logprobs.isnan().any(1).tolist()
    assert unsampled == [attempt.outcome == "known" for attempt in result.attempts]


def test_a_known_answer_that_the_model_could_not_give_is_not_trained_on(tmp_path):
    config = configured(known_answers=True)
    config.rollout.max_solve_tokens = 20  # a token a letter: no program
    result, _ = drive(self_play(tmp_path, config))
    assert {a.prompt.type for a in result.attempts if a.outcome == "known"} == {TaskType.DEDUCTION, TaskType.ABDUCTION}


def test_a_known_answer_ends_as_its_style_ends_answers_and_is_left_out_where_it_cannot_be_said(tmp_path):
    solver = self_play(tmp_path).solver
    solver.options = replace(OPTIONS, style="code")
    helped = "def g(x):\n    return x\n\ndef f(x):\n    return g(x)"
    for program, ids in (("def f(x):\n    return x", " f(x):\n    return x\n\n#"), (helped, None)):
        task = Task(TaskType.INDUCTION, program, ("1", "2", "3", "4"), ("1", "2", "3", "4"))
        row = solver.row(task)
        row.receive(0, completion(" f(x):\n    return 0\n\n#", 0))
        known = solver.known(row, StoredTask(1, task, 0, True, (), 0, 0, 2))
        assert (known and known.completion.response_ids) == (ids and tuple(map(ord, ids)))


def test_equal_answers_to_a_task_are_graded_once(tmp_path):
    executor = FakeExecutor()
    play = self_play(tmp_path, configured(task_types=["abduction"], solve_samples=4), executor)
    row = play.solver.row(adder_task(1, TaskType.ABDUCTION), samples=4)
    for sample, answer in enumerate(["1", "2", "1", "2"]):
        row.receive(sample, completion(KINDS[TaskType.ABDUCTION].answer_text(answer, OPTIONS), sample))
    assert [verdict.score for verdict in row.outcomes()] == [1, 0, 1, 0]
    assert row.pending[0] is row.pending[2] is not row.pending[1] is row.pending[3]


def test_every_length_up_to_one_more_line_than_any_task_has_is_as_likely_to_be_asked_for(tmp_path):
    config = configured(reference_sampling="depth", longest_asked=4)
    play = self_play(tmp_path, config)

    def asked_for(count: int = 300) -> Counter:
        rows = [play.proposer.row(TaskType.DEDUCTION, random.Random(seed)) for seed in range(count)]
        assert all(len(row.references) == 2 for row in rows)
        return Counter(int(re.search(r"lines (\d+)", row.row.prompt.text.full)[1]) for row in rows)

    assert set(asked_for()) == {1, 2}  # the seeds are one-liners
    for lines in (2, 3, 4, 5):
        body = "".join("    x += 1\n" for _ in range(lines - 1))
        play.buffer.add(Task(TaskType.DEDUCTION, f"def f(x):\n{body}    return x", ("1",), (str(lines),)), 1)
    counts = asked_for()
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 50


def with_advantage(**changes):
    config = configured(propose_samples=changes.pop("propose_samples", 1), solve_samples=changes.pop("solve_samples", 1))
    config.advantage = replace(config.advantage, **changes)
    return config


def test_answers_to_one_prompt_are_compared_with_each_other(tmp_path):
    result, asked = drive(self_play(tmp_path, with_advantage(name="grpo", propose_samples=2, solve_samples=4)))
    texts = dict(asked)
    assert texts["propose"][::2] == texts["propose"][1::2]
    assert len(texts["solve"]) == 3
    for kind in TaskType:
        solved = [a for a in result.attempts if (a.prompt.role, a.prompt.type) == (Role.SOLVE, kind)]
        assert sum(a.advantage for a in solved) == pytest.approx(0, abs=1e-6)
        assert max(solved, key=lambda a: a.advantage).reward == 1.0


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_estimator_takes_two_steps(tmp_path, name):
    play = self_play(tmp_path, with_advantage(name=name, propose_samples=2, solve_samples=2))
    for number in (1, 2):
        batch = drive(play, number)[0].batch
        assert batch.advantages.isfinite().all()
        assert batch.advantages.any()


def test_a_moving_average_is_kept_with_the_tasks(tmp_path):
    play = self_play(tmp_path, with_advantage(name="role_baseline"))
    drive(play)
    first = play.buffer.read_note("baselines")
    assert sorted(first) == [str(group) for group in range(len(groups()))]
    drive(play, 2)
    assert play.buffer.read_note("baselines") != first


def test_rows_that_teach_nothing_can_be_left_out_of_the_update_but_not_of_the_log(tmp_path):
    result, _ = drive(self_play(tmp_path, with_advantage(name="grpo", propose_samples=2, solve_samples=2, filter_zero_variance=True)))
    left = [a for a in result.attempts if a.advantage]
    assert 0 < len(left) < len(result.attempts) == 24
    assert result.batch.rewards.tolist() == [a.reward for a in left]
    assert len(result.batch.prompt_ids) == result.metrics["train/rows"] == len(left)
    assert result.batch.mask.shape[1] == max(len(ids) for ids in result.batch.response_ids)


def test_wrong_answers_can_be_left_to_teach_nothing_while_proposals_do_as_ever(tmp_path):
    changes = {"name": "grpo", "propose_samples": 2, "solve_samples": 2}
    both, right_alone = (drive(self_play(tmp_path / str(w), with_advantage(failure_weight=w, **changes)))[0].attempts for w in (1.0, 0.0))
    for before, after in zip(both, right_alone, strict=True):
        silent = before.prompt.role is Role.SOLVE and before.advantage < 0
        assert after.advantage == (0 if silent else before.advantage)
    assert any(a.advantage < 0 for a in both if a.prompt.role is Role.SOLVE)
    assert any(a.advantage < 0 for a in right_alone)


def test_every_completion_is_told_of_with_its_task_and_only_what_is_trained_on_has_an_advantage(tmp_path):
    play = self_play(tmp_path, configured(train_propose=False))
    result, _ = drive(play)
    assert [row.phase for row in result.rollouts] == ["propose"] * 12 + ["estimate"] * 6 + ["solve"] * 12
    assert all((row.advantage is not None) == (row.phase == "solve") for row in result.rollouts)
    new = {kind: play.buffer.recent(kind, 1)[0].id for kind in TaskType}
    for row in result.rollouts:
        if row.phase == "propose":
            assert row.task_id == (new[row.prompt.type] if row.outcome == "solve_rate=0.50" else None)
            assert row.references
        elif row.phase == "estimate":
            assert row.task_id == new[row.prompt.type]
        else:
            assert play.buffer.get(row.task_id).task == row.task
    assert [row.outcome for row in result.rollouts[12:18]] == ["right", "wrong_value"] * 3
    reused, _ = drive(self_play(tmp_path / "reused", configured(reuse_estimates=True)))
    assert all(row.advantage is not None for row in reused.rollouts)


def test_a_task_that_the_filter_keeps_out_of_the_buffer_has_no_id(tmp_path):
    config = configured(valid_program_filter="non_extremes")
    config.rollout.estimate_samples = 1  # the one estimate is right: every new task is always solved
    result, _ = drive(self_play(tmp_path, config))
    assert {row.outcome for row in result.rollouts if row.phase == "propose"} >= {"solve_rate=1.00"}
    assert all(row.task_id is None for row in result.rollouts if row.phase != "solve")


def rewarding(how="sum", **coefs) -> RunConfig:
    config = configured()
    config.reward.intrinsic_combine = how
    for name, coef in coefs.items():
        config.reward.intrinsic[name] = IntrinsicConfig(coef=coef)
    return config


def test_every_intrinsic_reward_of_the_project_adds_to_learnable_tasks_alone(tmp_path):
    result, _ = drive(self_play(tmp_path, rewarding(**dict.fromkeys(BUILT_IN, 1.0))))
    for kind in TaskType:
        found = {name.rsplit("/")[-1] for name in result.metrics if name.startswith(f"intrinsic/{kind}/")}
        assert found == {name for name, (_, types, _) in BUILT_IN.items() if not types or kind in types}
        extra = sum(result.metrics[f"intrinsic/{kind}/{name}"] for name in found)
        assert rewards(result, Role.PROPOSE, kind) == pytest.approx([-1.0, -1.0, -0.5, 0.5 + extra])


def test_a_reward_of_the_users_own_sees_the_task_its_references_and_the_history(tmp_path, monkeypatch):
    (tmp_path / "my_package.py").write_text(
        "def shown(task, references, history):\n    return 10 * len(references) + sum(history.outputs(task.type).values())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = rewarding()
    config.reward.intrinsic["mine"] = IntrinsicConfig(coef=0.001, target="my_package.shown")
    result, _ = drive(self_play(tmp_path / "run", config))
    assert result.metrics["intrinsic/deduction/mine"] == pytest.approx(0.001 * (20 + len(SEEDS)))
    assert result.metrics["intrinsic/induction/mine"] == pytest.approx(0.001 * (10 + 4 * len(SEEDS)))  # one reference, four outputs a task


def test_a_reward_of_the_users_own_that_fails_ends_the_step_with_its_name(tmp_path, monkeypatch):
    (tmp_path / "their_package.py").write_text("def broken(task, references, history):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = rewarding()
    config.reward.intrinsic["mine"] = IntrinsicConfig(coef=1.0, target="their_package.broken")
    with pytest.raises(UserError, match=r"reward\.intrinsic\.mine failed on the task .*ZeroDivisionError"):
        drive(self_play(tmp_path / "run", config))


@pytest.mark.parametrize(("name", "kept"), [("all", 3), ("non_one", 3), ("non_extremes", 3)])
def test_tasks_that_are_sometimes_solved_pass_every_filter(tmp_path, name, kept):
    play = self_play(tmp_path, configured(valid_program_filter=name))
    drive(play)
    assert play.buffer.count() == 3 * len(SEEDS) + kept


def test_tasks_that_nobody_solves_can_be_kept_out_of_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(Proposed, "solve_rate", 0.0)
    play = self_play(tmp_path, configured(valid_program_filter="non_extremes"))
    drive(play)
    assert play.buffer.count() == 3 * len(SEEDS)


def test_a_depth_asked_for_is_in_the_prompt(tmp_path):
    _, asked = drive(self_play(tmp_path, configured(reference_sampling="depth")))
    assert all(re.match(r"# propose (deduction|abduction) lines [12]\n", text) for text in asked[0][1][:8])


def test_solving_from_the_buffer_alone_draws_among_all_tasks(tmp_path):
    play = self_play(tmp_path, configured(solve_from="buffer", task_types=["deduction"]))
    result, _ = drive(play)
    solved = [attempt.task for attempt in result.attempts if attempt.prompt.role is Role.SOLVE]
    assert len(set(solved)) == 4
    assert all(isinstance(task, Task) and play.buffer.contains(task) for task in solved)


def test_the_metrics_count_what_happened(tmp_path):
    metrics = drive(self_play(tmp_path))[0].metrics
    for kind in TaskType:
        found = {name.split("/")[2]: value for name, value in metrics.items() if name.startswith(f"propose/{kind}/")}
        assert found["valid"] == found["format"] == found["new"] == found["solve_rate"] == 0.5
        assert found["reward"] == pytest.approx(-0.5)
        assert metrics[f"solve/{kind}/accuracy"] == metrics[f"solve/{kind}/truncated"] == 0.25
        assert metrics[f"solve/{kind}/format"] == 0.5
    assert (metrics["refused/duplicate"], metrics["refused/format"], metrics["refused/truncated"]) == (3, 3, 3)
