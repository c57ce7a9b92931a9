"""`azr-nemo rollouts`: what is asked for is found, shown safely, and what cannot be found is a sentence."""

import ast
import json
import sys
from pathlib import Path

import pytest
from many_rollouts import rollout

import azr_nemo
from azr_nemo.cli import main
from azr_nemo.observe.rollout_listing import CLASSES, NAMES, matches
from azr_nemo.observe.rollout_log import path_of, write_step
from azr_nemo.tasks.task import TaskType

PACKAGE = Path(azr_nemo.__file__).parent
ABDUCTION, DEDUCTION, INDUCTION = TaskType.ABDUCTION, TaskType.DEDUCTION, TaskType.INDUCTION
LONG = "\n".join(f"line {number}" for number in range(30))


@pytest.fixture
def run(tmp_path):
    """Two steps of a run."""
    write_step(
        tmp_path,
        1,
        [
            rollout("propose", INDUCTION, "def f(x): return oh", outcome="error", task=None, references=(4, 2), reward=-1, advantage=-0.7),
            rollout("propose", DEDUCTION, "def f(x): return x", outcome="duplicate", task=None),
            rollout("propose", ABDUCTION, "while True: pass", outcome="timeout", task=None, prompt=LONG),
            rollout("solve", INDUCTION, "no fence", outcome="format"),
        ],
    )
    write_step(
        tmp_path,
        2,
        [
            rollout("propose", INDUCTION, "\x1b[2Jdef f(x):\n    return x", outcome="solve_rate=0.50", task=17),
            rollout("estimate", INDUCTION, "return 1", outcome="right", task=17, advantage=None),
            rollout("estimate", INDUCTION, "return 2", outcome="wrong_value", task=17, advantage=None, reward=-0.5),
            rollout("solve", DEDUCTION, "[bold]7[/bold]", outcome="right", task=3),
        ],
    )
    return tmp_path


@pytest.fixture
def azr(monkeypatch, capsys):
    """The command as a user gives it: its exit code, what it printed, and its error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["azr-nemo", "rollouts", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return end.value.code or 0, told.out, told.err

    return call


@pytest.fixture
def completions(azr, run):
    """Of what is asked for, in the order of its printing."""

    def call(*arguments):
        code, out, _ = azr(run, "--format", "json", *arguments)
        assert code == 0
        return [json.loads(line)["completion"] for line in out.splitlines()]

    return call


def test_what_failed_is_found_by_role_task_and_status(azr, run):
    code, out, _ = azr(run, "--role", "propose", "--task", "induction", "--status", "error", "--limit", 20)
    assert (code, out) == (
        0,
        "step 1 | propose induction | error | reward -1 | advantage -0.7 | references 4, 2 | 4 tokens\n"
        "induction?\n"
        ">>> def f(x): return oh\n\n",
    )


def test_the_latest_step_comes_first_and_a_limit_says_that_there_is_more(azr, run, completions):
    assert [text[:8] for text in completions("--limit", 5)] == ["\x1b[2Jdef ", "return 1", "return 2", "[bold]7[", "def f(x)"]
    assert len(completions("--limit", 0)) == len(completions()) == 8
    assert azr(run, "--limit", 3)[1].endswith("these are 3; there are more: --limit 0 prints all\n")
    assert "there are more" not in azr(run, "--limit", 8)[1]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["--phase", "estimate"], ["return 1", "return 2"]),
        (["--role", "solve", "--step", "1"], ["no fence"]),
        (["--status", "wrong"], ["return 2"]),
        (["--status", "malformed"], ["no fence"]),
        (["--status", "failed"], ["def f(x): return oh", "while True: pass"]),
        (["--status", "timeout"], ["while True: pass"]),
        (["--status", "refused"], ["def f(x): return x"]),
        (["--status", "ok", "--phase", "solve"], ["[bold]7[/bold]"]),
        (["--status", "ok", "--role", "propose"], ["\x1b[2Jdef f(x):\n    return x"]),
        (["--status", "solve_rate=0.50"], ["\x1b[2Jdef f(x):\n    return x"]),
        (["--status", "solve_rate=0.25"], []),
        (["--contains", "line 7"], ["while True: pass"]),
        (["--contains", "return oh"], ["def f(x): return oh"]),
        (["--status", "crashed"], []),
    ],
)
def test_every_option_leaves_what_is_all_of_it(completions, asked, found):
    assert completions(*asked) == found


def test_what_a_model_wrote_is_shown_as_text_and_moves_no_terminal(azr, run):
    _, out, _ = azr(run, "--step", 2)
    assert "\x1b" not in out
    assert ">>> \\x1b[2Jdef f(x):\n    return x\n" in out
    assert ">>> [bold]7[/bold]\n" in out
    assert "step 2 | estimate induction | right | reward 0.5 | task 17 | 4 tokens" in out, "no advantage: it is not trained on"


def test_of_a_long_prompt_the_ends_are_shown_unless_it_is_wanted_in_full(azr, run):
    _, out, _ = azr(run, "--status", "timeout")
    assert "line 0\n" in out
    assert "line 29\n" in out
    assert "more lines" in out
    assert "line 15\n" not in out
    assert LONG in azr(run, "--status", "timeout", "--full")[1]


def test_nothing_found_is_said(azr, run):
    code, out, _ = azr(run, "--contains", "nowhere")
    assert (code, out) == (0, "no rollout is all of that\n")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--role", "judge"], "--role judge is unknown: choose one of propose, solve"),
        (["--phase", "seed"], "--phase seed is unknown: choose one of propose, estimate, solve"),
        (["--task", "code_o"], "--task code_o is unknown: choose one of deduction, abduction, induction"),
        (["--status", "eror"], "--status eror is unknown: choose one of ok, wrong, malformed, failed, refused, right"),
        (["--format", "xml"], "--format xml is unknown: choose one of text, json"),
        (["--step", "7"], "has no rollouts of step 7: the steps that it has lie between 1 and 2"),
    ],
)
def test_what_no_rollout_can_be_is_a_sentence(azr, run, asked, sentence):
    code, out, error = azr(run, *asked)
    assert (code, out) == (2, "")
    assert sentence in error
    assert error.count("\n") == 1


def test_a_task_type_of_an_extension_is_known_by_its_rollouts(azr, run, monkeypatch):
    with monkeypatch.context() as extended:
        extended.setattr(TaskType, "named", dict(TaskType.named))
        write_step(run, 3, [rollout("solve", TaskType.new("repair"), "mended")])
    code, out, _ = azr(run, "--task", "repair")
    assert (code, "solve repair" in out, out.count(">>>")) == (0, True, 1)
    code, _, error = azr(run, "--task", "repairs")
    assert code == 2
    assert "--task repairs is unknown: choose one of deduction, abduction, induction, repair\n" in error


def test_a_run_without_rollouts_and_a_damaged_file_are_sentences(azr, run, tmp_path):
    code, _, error = azr(tmp_path / "none")
    assert code == 2
    assert f"{tmp_path / 'none'} has no rollouts: expected {tmp_path / 'none' / 'rollouts'}/step-*.parquet" in error
    path_of(run, 2).write_bytes(b"PAR1 and no more")
    code, _, error = azr(run)
    assert code == 2
    assert error.startswith(f"azr-nemo: {path_of(run, 2)} cannot be read as a step's rollouts (")
    assert error.count("\n") == 1
    assert azr(run, "--step", 1)[0] == 0, "the others do not need it"


def test_every_outcome_has_exactly_one_class_and_no_class_has_an_outcomes_name():
    assert len(NAMES) == len(set(NAMES))
    assert not set(CLASSES) & set(NAMES)
    for name in NAMES:
        assert [status for status in CLASSES if matches(name, status)] == [next(c for c, names in CLASSES.items() if name in names)]


def test_every_outcome_that_the_code_can_give_is_known():
    """Slugs of refusals and verdicts are written where they arise."""
    given: set[str] = set()
    constants: dict[str, str] = {}
    for path in [*(PACKAGE / "tasks").rglob("*.py"), *(PACKAGE / "selfplay").rglob("*.py")]:
        if path.name == "seed_files.py":  # refuses rows of files, not what a model writes
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Refusal", "Verdict"):
                given |= {
                    part.value
                    for part in node.args
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " not in part.value
                }
            targets = node.targets[0] if isinstance(node, ast.Assign) else None
            names = [getattr(part, "attr", "") for part in getattr(targets, "elts", [targets])]
            if isinstance(node, ast.Assign) and names[:1] == [""] and isinstance(node.value, ast.Constant):
                constants |= {getattr(targets, "id", ""): node.value.value}
            if "refusal" in names:
                given |= {constants[part.id] for part in ast.walk(node.value) if isinstance(part, ast.Name) and part.id in constants}
                given |= {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    assert {"right", "format", "too_deep", "duplicate", "crowded_shape", "prompt_too_long"} <= given
    assert given <= set(NAMES)
