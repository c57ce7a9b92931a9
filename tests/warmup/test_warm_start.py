"""The warm start: generated tasks are right and reproducible, held-out programs stay out, examples are what self-play reads."""

from concurrent.futures import Future
from dataclasses import replace
from itertools import islice

import pytest

from azr_nemo.errors import UserError
from azr_nemo.evaluation.in_training import HeldOut, wilson
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Outcome, Status
from azr_nemo.selfplay.exchange import Completion
from azr_nemo.selfplay.solver import Solver
from azr_nemo.selfplay.validation import Verifier
from azr_nemo.settings.schema import RunConfig, WarmupConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.program import check, is_held_out, parse_arguments, program_hash
from azr_nemo.tasks.task import PromptOptions, Refusal, Role, Task, TaskType
from azr_nemo.warmup.examples import MIXTURE, examples
from azr_nemo.warmup.generator import generate_tasks, one_pair
from azr_nemo.warmup.warm_start import FLOOR, batches, lr_at, warm_start, warm_start_key

OPTIONS = PromptOptions(style="completion", pairs=4)


class InProcess:
    """Runs in this process what the package's own grammar wrote; no text of a model comes here."""

    def run(self, requests, progress=None):
        return [[self._call(request.program, text) for text in request.inputs] for request in requests]

    def submit(self, request):
        future = Future()
        future.set_result(self.run([request])[0])
        return future

    def _call(self, program: str, text: str) -> Outcome:
        names: dict = {}
        try:
            exec(program, names)  # noqa: S102
            return Outcome(Status.OK, repr(eval(f"f({text})", names)))  # noqa: S307
        except Exception as error:
            return Outcome(Status.ERROR, error=str(error))


@pytest.fixture(scope="module")
def trained():
    return generate_tasks(400, 1, InProcess(), pairs=4)


@pytest.fixture(scope="module")
def held_out():
    return generate_tasks(60, 1, InProcess(), pairs=4, held_out=True)


def test_generated_tasks_are_tasks(trained, held_out):
    assert len(trained) == 400
    for task in [*trained, *held_out]:
        assert check(task.program) is None
        assert not any(isinstance(parse_arguments(text), Refusal) for text in task.inputs)
        assert len(set(task.inputs)) == len(task.outputs) == 4
        assert len(set(task.outputs)) > 1
        assert task.message


def test_a_seed_always_gives_the_same_tasks_and_another_seed_others(trained):
    assert generate_tasks(400, 1, InProcess(), pairs=4) == trained
    few, others = (generate_tasks(40, seed, InProcess(), pairs=4) for seed in (1, 2))
    assert few != others


def test_a_program_is_started_once_however_often_it_is_drawn():
    class Counting(InProcess):
        started: list[str] = []

        def run(self, requests, progress=None):
            self.started += [request.program for request in requests]
            return super().run(requests)

    executor = Counting()
    tasks = generate_tasks(400, 1, executor, pairs=4)
    assert len(executor.started) == len(set(executor.started))
    assert len({task.program for task in tasks}) < len(tasks)


def test_no_held_out_program_is_trained_on_whatever_the_seeds(trained, held_out):
    seen = {program_hash(task.program) for seed in (2, 3) for task in generate_tasks(300, seed, InProcess(), pairs=4)}
    seen |= {program_hash(task.program) for task in trained}
    assert not seen & {program_hash(task.program) for task in held_out}
    assert len({program_hash(task.program) for task in held_out}) == len(held_out)
    assert all(is_held_out(task.program) for task in held_out)


def test_a_layout_or_a_comment_does_not_carry_a_program_over_the_line(held_out):
    assert all(is_held_out(task.program.replace("    ", "  ") + "  # why\n") for task in held_out)


def test_a_dead_sandbox_ends_the_generation():
    class Dead(InProcess):
        def run(self, requests, progress=None):
            raise ExecutorUnavailable("gone")

    with pytest.raises(ExecutorUnavailable):
        generate_tasks(5, 1, Dead())


def test_a_grammar_that_cannot_give_enough_says_so():
    class Failing(InProcess):
        def _call(self, program, text):
            return Outcome(Status.ERROR)

    with pytest.raises(RuntimeError, match="0 of 2"):
        generate_tasks(2, 1, Failing())


@pytest.mark.parametrize("style", ["completion", "r1", "code", "chat"])
def test_every_example_is_read_back_by_self_play(trained, style):
    options, seen = replace(OPTIONS, style=style), set()
    by_program = {task.program: task for task in trained}
    for prompt, completion in islice(examples(trained, options, 2, seed=1), 200):
        response = prompt.prefill + completion
        readings = []
        for kind in KINDS.values():
            readings += [(Role.SOLVE, kind.type, kind.parse_answer(response, options))]
            readings += [(Role.PROPOSE, kind.type, kind.parse_proposal(response, trained[:1], options))]
        seen |= {(role, type) for role, type, read in readings if not isinstance(read, Refusal)}
        assert any(not isinstance(read, Refusal) for _, _, read in readings)
        programs = [read.program for _, type, read in readings if type is not TaskType.INDUCTION and hasattr(read, "program")]
        assert all(program in by_program for program in programs)
    # An induction proposal without a message is not read in the R1 style.
    assert seen >= set(MIXTURE) - ({(Role.PROPOSE, TaskType.INDUCTION)} if style == "r1" else set())


def test_solving_examples_are_right(trained):
    verifier, right = Verifier(InProcess(), Limits()), 0
    asked = {KINDS[kind].solve_prompt(made, OPTIONS).full: made for kind in TaskType for made in pairs(trained, kind)}
    for prompt, completion in islice(examples(trained, OPTIONS, 2, seed=2), 100):
        if prompt.full in asked:
            task = asked[prompt.full]
            answer = KINDS[task.type].parse_answer(prompt.prefill + completion, OPTIONS)
            assert verifier.submit(task, answer).result().score == 1
            right += 1
    assert right > 50


def pairs(tasks, kind):
    if kind is TaskType.INDUCTION:
        return [replace(task, message="") for task in tasks]
    return [one_pair(task, kind, pair) for task in tasks for pair in range(4)]


def test_the_examples_are_the_same_for_a_seed(trained):
    first, again, other = (list(islice(examples(trained, OPTIONS, 2, seed), 30)) for seed in (1, 1, 2))
    assert first == again != other


def configured(**warmup) -> RunConfig:
    config = RunConfig(warmup=WarmupConfig(**warmup))
    config.selfplay.references = 2
    return config


def test_batches_are_as_many_and_as_large_as_asked_for(trained):
    encode = lambda text: list(text.encode())  # noqa: E731
    made = list(batches(trained, OPTIONS, configured(steps=3, batch_size=4), encode, lambda text: [*text.encode(), 0]))
    assert [len(batch) for batch in made] == [4, 4, 4]
    assert all(example.response_ids[-1] == 0 for batch in made for example in batch)


def test_an_example_of_a_style_with_stops_has_no_end_token(trained):
    encode = lambda text: list(text.encode())  # noqa: E731
    config = configured(steps=3, batch_size=4)
    made = batches(trained, replace(OPTIONS, style="code"), config, encode, lambda text: [*text.encode(), 0])
    for example in (example for batch in made for example in batch):
        assert bytes(example.response_ids).decode().endswith(("\n", "\n#", "\ny5"))


def test_examples_over_the_limits_are_left_out(trained):
    config = configured(steps=3, batch_size=4)
    config.rollout.max_prompt_tokens = 150
    encode = lambda text: list(text.encode())  # noqa: E731
    made = [example for batch in batches(trained, OPTIONS, config, encode, encode) for example in batch]
    assert max(len(example.prompt_ids) for example in made) <= 150


def test_limits_that_leave_room_for_nothing_are_an_error(trained):
    config = configured(steps=1)
    config.rollout.max_prompt_tokens = 3
    with pytest.raises(UserError, match=r"rollout\.max_prompt_tokens=3"):
        next(batches(trained, OPTIONS, config, lambda text: list(text.encode()), lambda text: []))


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1500])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_floor(steps):
    config = WarmupConfig(steps=steps, lr=1e-3)
    rates = [lr_at(step, config) for step in range(steps)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-3)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
    if steps >= 100:
        assert rates[-1] == pytest.approx(FLOOR * 1e-3)
        assert peak <= 0.06 * steps


def test_each_step_learns_at_its_rate_and_reports_its_loss():
    class Learner:
        rates: list[float] = []

        def supervise(self, batch, lr):
            self.rates.append(lr)
            return {"loss": float(len(batch))}

    config, learner, told = WarmupConfig(steps=3, lr=1.0), Learner(), []
    warm_start(learner, iter([[1], [1, 2], []]), config, lambda step, loss: told.append((step, loss)))
    assert told == [(0, 1.0), (1, 2.0), (2, 0.0)]
    assert learner.rates == [lr_at(step, config) for step in range(3)]


def test_the_key_changes_with_all_that_decides_the_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    base = configured(steps=10)
    keys = [warm_start_key(tmp_path, base)]
    assert warm_start_key(tmp_path, configured(steps=10)) == keys[0]
    for section, name, value in [
        ("warmup", "steps", 11), ("warmup", "lr", 1.0), ("warmup", "seed", 9), ("model", "dtype", "float32"), ("selfplay", "references", 5),
        ("selfplay", "prompt_style", "completion"), ("rollout", "max_prompt_tokens", 99), ("rollout", "max_solve_tokens", 99),
        ("rollout", "max_propose_tokens", 99), ("optim", "weight_decay", 0.5),
    ]:  # fmt: skip
        config = configured(steps=10)
        setattr(getattr(config, section), name, value)
        keys.append(warm_start_key(tmp_path, config))
    (tmp_path / "model.safetensors").write_bytes(b"others")
    keys.append(warm_start_key(tmp_path, base))
    assert len(set(keys)) == len(keys)
    unrelated = configured(steps=10)
    unrelated.selfplay.steps = 999
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert warm_start_key(tmp_path, unrelated) == keys[0]


# Brown, Cai and DasGupta (2001), and the closed forms at the ends: z^2 / (n + z^2).
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (1, 1, 0.2065, 1.0)],
)
def test_wilson_intervals_are_the_known_ones(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_held_out_accuracy_is_greedy_and_counts_right_answers(held_out):
    config = configured()
    solver = Solver(None, Verifier(InProcess(), Limits()), OPTIONS, config, lambda text: True, list)
    evaluation = HeldOut(held_out[:10], solver)
    steps = evaluation.evaluate()
    batch = next(steps)
    assert {(prompt.samples, prompt.temperature) for prompt in batch.prompts} == {(1, 0.0)}
    answers = []
    for task in evaluation.tasks:
        right = {
            TaskType.DEDUCTION: task.outputs[0],
            TaskType.ABDUCTION: task.inputs[0],
            TaskType.INDUCTION: "def f(x):\n    return 'wrong'",
        }
        text = KINDS[task.type].answer_text(right[task.type], OPTIONS)
        answers.append([Completion(text, (1,), (2,), (-0.1,), finished=True)])
    with pytest.raises(StopIteration) as stop:
        steps.send(answers)
    metrics = stop.value.value
    assert (metrics["eval/deduction"], metrics["eval/abduction"], metrics["eval/induction"]) == (1.0, 1.0, 0.0)
    assert metrics["eval/deduction_high"] == 1.0 > metrics["eval/deduction_low"] > 0.7
    assert [task for task in HeldOut(held_out[:10], solver).tasks] == evaluation.tasks


def test_held_out_inputs_that_repeat_the_output_are_counted_by_themselves():
    """Of three tasks one is answered by its own output, one wrongly, and one rightly by something else."""
    solver = Solver(None, Verifier(InProcess(), Limits()), OPTIONS, configured(), lambda text: True, list)
    program = "def f(x):\n    return sorted(x)"
    tasks = [Task(TaskType.INDUCTION, program, ("[2, 1]", "[3, 1]"), ("[1, 2]", "[1, 3]"), "sorts") for _ in range(3)]
    evaluation = HeldOut(tasks, solver)
    steps = evaluation.evaluate()
    next(steps)
    said = iter([lambda task: task.output, lambda task: "[9]", lambda task: task.inputs[0]])
    answers = []
    for task in evaluation.tasks:
        answer = next(said)(task) if task.type is TaskType.ABDUCTION else ""
        answers.append([Completion(KINDS[task.type].answer_text(answer, OPTIONS), (1,), (2,), (-0.1,), finished=True)])
    with pytest.raises(StopIteration) as stop:
        steps.send(answers)
    metrics = stop.value.value
    assert metrics["eval/abduction"] == pytest.approx(2 / 3)
    assert metrics["held_out/abduction/echo"] == pytest.approx(1 / 3)
    assert metrics["held_out/abduction/without_echo"] == pytest.approx(1 / 3)
