"""Answers are compared as mathematics, in a jail, under a deadline, whatever a model wrote."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import process_trees
import pytest
from quick_part import quick_part

from azr_nemo.evaluation.maths import grader as module
from azr_nemo.evaluation.maths.grader import MathGrader, Verdict, jail_plan
from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Status
from azr_nemo.sandbox.local.process import Worker

pytest.importorskip("math_verify")

SAME = [
    ("1/2", "0.5"), ("1/2", "\\frac12"), ("\\frac{1}{2}", "\\dfrac{2}{4}"), ("0.5", "1/2"), ("2", "2.0"), ("10,080", "10080"),
    ("11,\\! 111,\\! 111,\\! 100", "11111111100"), ("\\$32,\\!348", "32348"), ("-1./3", "-\\frac13"),
    ("\\frac{1}{3}", "0.333333"), ("x^2+2x+1", "(x+1)^2"), ("\\sqrt{8}", "2\\sqrt{2}"), ("p - q", "-q + p"),
    ("[1,2)", "[1, 2)"), ("x \\in [-2,7]", "[-2,7]"), ("x < 5", "(-\\infty, 5)"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "(3,\\infty)\\cup(-\\infty,2)"),
    ("\\{1, 2\\}", "\\{2, 1\\}"), ("1,2", "2, 1"), ("1, 2", "1 \\text{ and } 2"), ("(3, \\frac{\\pi}{2})", "\\left(3,\\pi/2\\right)"),
    ("5", "x = 5"), ("x = 5", "5"), ("5", "5 \\text{ apples}"), ("1.6", "1.6 \\mathrm{~cm}"), ("90^\\circ", "90"), ("36", "\\$36"),
    ("50\\%", "0.5"), ("50\\%", "50"), ("50", "50\\%"), ("0.5", "50 \\%"), ("\\text{Evelyn}", "Evelyn"), ("\\text{(C)}", "C"),
    ("4.5e33", "4.5 \\times 10^{33}"), ("4.5e33", "45 \\cdot 10^{32}"), ("1e-8", "10^{-8}"), ("3.3e-10", "0.00000000033"), ("5e2", "500"),
    ("1.6e3", "1.6 \\times 10^3 \\text{ m}"),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{bmatrix} 1 \\\\ 2 \\end{bmatrix}"),
    ("12", "There are 12 ways"), ("12", "So there are $12$ ways"), ("x \\ge 2", "Hence $x \\ge 2$ holds"), ("7", "The answer is $7$"), ("7", "Answer: 7"),
    ("5", "5 marbles"), ("5", "\\text{5 hours}"), ("5", "5~\\text{hours}"), ("7", "7 (seven)"), ("27", "twenty-seven"), ("73", "**73**"), ("7", "`7`"),
    ("35\\%", "35 percent"), ("0.35", "35 \\text{ percent}"), ("1000", "1\\,000"), ("12345678", "12 345 678"), ("1000", "1{,}000"),
    ("\\sqrt{2}", "√2"), ("2\\sqrt{x+1}", "2√(x+1)"), ("\\sqrt[3]{2}", "∛2"), ("\\frac{5}{2}", "2½"), ("(-\\infty, 3]", "(−∞, 3]"), ("x^{12}", "x¹²"),
    ("12", "１２"), ("2\\pi", "2π"), ("2\\pi", "2*pi"), ("-1", "–1"), ("1024", "2^10"), ("3 \\times 10^8", "3 x 10^8"), ("[0,1]", "0 ≤ x ≤ 1"),
    ("\\text{(B)}", "B) 5 apples"), ("B", "\\textbf{(B)}"), ("\\frac{1}{\\sqrt{n}}", "\\sqrt{1/n}"), ("1, 2, \\ldots, n", "1,2,\\dots,n"),
    ("\\frac{1}{2^{60}}", "2^{-60}"), ("\\{\\frac{1}{2^{60}}, 3\\}", "\\{3, 2^{-60}\\}"), ("\\frac{1}{3000000}", "3.3333333 \\times 10^{-7}"),
]  # fmt: skip
DIFFERENT = [
    ("\\frac{1}{2^{60}}", "\\frac{1}{2^{59}}"), ("\\{\\frac{1}{2^{60}}, 3\\}", "\\{3, 2^{-59}\\}"), ("\\frac{1}{2^{60}}", "0.0"),
    ("(0, 10^{-20})", "(0, 10^{-21})"),
    ("\\frac{3^{900}+1}{5 \\cdot 3^{901}}", "\\frac{1}{5 \\cdot 3^{901}}"), ("x 10^{-20}", "x 10^{-21}"), ("\\pi^{-50}", "\\pi^{-49}"), ("5", "5 = 5"),
    ("f(x)=0", "\\forall x>0, f(x)=0"), ("1, 2, \\ldots, n", "1, 3, 5, \\ldots, 2n-1"), ("2", "1, 2, \\ldots"), ("5", "5 million"),
    ("5", "5 factorial"), ("7", "7 (eight)"),
    ("5", "at least 5"), ("5", "any number up to 5"), ("|x|", "x"), ("2", "2xy"), ("\\text{(B)}", "C) 5 apples"), ("2", "√2"), ("20", "2^10"),

    ("1/2", "0.51"), ("1/3", "0.33"), ("[1,2)", "[1,2]"), ("(1,2)", "(2,1)"), ("\\{1,2\\}", "\\{1,3\\}"), ("1,2", "1"), ("x^2", "x^3"),
    ("4.5e33", "4.6e33"), ("1e-8", "0"), ("3.3e-10", "0.00000000034"), ("1.325e-27", "1.4e-27"), ("16", "16 cm^2"), ("5", "5 or 6 or 7"),
    ("\\text{east}", "west"), ("100000000000000000001", "100000000000000000002"), ("5", ""), ("5", "\\frac{"), ("5", "}{"), ("5", "\0\ud800"),
]  # fmt: skip
ENDLESS = {
    "a tower of powers": "9^{9^{9^{9}}}",
    "a factorial": "1000000!",
    "a large power": "2^{100000000000}",
    "a sum": "\\sum_{k=1}^{10^{12}} \\sin(k^2)",
    "deep fractions": "\\frac{1}{" * 500 + "1" + "}" * 500,
    "a hundred thousand digits": "1" * 100_000,
    "a hundred thousand characters": "x+" * 50_000 + "1",
    "open brackets": "(" * 50_000,
}


@pytest.fixture(scope="module")
def hurried():
    """A grader whose comparisons have a second each."""
    with MathGrader(deadline_s=1.0) as grader:
        yield grader


FRACTIONS = """
from fractions import Fraction

def same(gold, answer):
    while "^" in answer:
        pass
    return Fraction(gold) == Fraction(answer)
"""


@pytest.fixture
def of_fractions(monkeypatch, tmp_path):
    """Graders of which only the workers count: they compare fractions, and end no tower of powers, without math-verify, whose import takes seconds."""
    (tmp_path / f"{module.COMPARISON}.py").write_text(FRACTIONS)
    real = jail_plan()
    frame = {**real.first_frame, "modules": [module.COMPARISON], "search": [str(tmp_path)]}
    monkeypatch.setattr(module, "jail_plan", lambda allow_unjailed: replace(real, first_frame=frame))


@pytest.fixture(scope="module")
def worker():
    """A grader's worker, asked directly; every program of it runs in a fork of its own."""
    with Worker(jail_plan(), hash_seed=1) as worker:
        yield worker


@pytest.mark.parametrize(("gold", "answer"), quick_part(SAME))
def test_equal_answers_are_right_however_they_are_written(grader, gold, answer):
    assert grader.submit(gold, answer).result() is Verdict.RIGHT


@pytest.mark.parametrize(("gold", "answer"), quick_part(DIFFERENT))
def test_other_answers_are_wrong(grader, gold, answer):
    assert grader.submit(gold, answer).result() is not Verdict.RIGHT


@pytest.mark.slow
@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_comparison_ends_by_the_deadline_and_the_next_one_works(hurried, answer):
    hurried.submit("1", "2").result()
    (worker,) = hurried.pids()
    start = time.monotonic()
    assert hurried.submit("3", answer).result() in (Verdict.TIMEOUT, Verdict.MEMORY, Verdict.WRONG)
    assert time.monotonic() - start < 4 * 1.0 + 2.0  # wall time is bounded by four deadlines
    assert hurried.submit("1/2", "0.5").result() is Verdict.RIGHT
    assert hurried.pids() == [worker]  # only a fork was ended


@pytest.mark.slow
def test_a_tower_of_powers_is_a_timeout(grader):
    assert grader.submit("3", ENDLESS["a tower of powers"]).result() is Verdict.TIMEOUT


HOSTILE = [
    "__import__('os').system('touch {}')",
    "\\__import__('os').system('touch {}')",
    "1 + __import__(\"os\").system(\"touch {}\")",
    "(lambda: open('{}', 'w'))()",
    "\\text{{__import__('os').system('touch {}')}}",
    "f(__import__('os').system('touch {}'))",
    "\\operatorname{{eval}}(open('{}', 'w'))",
    "\\max(__import__('os').system('touch {}'), 1)",
    "x_{{__import__('os').system('touch {}')}}",
    "${{1 + open('{}','w')}}$",
    "1; import os; os.system('touch {}')",
    "}}; open('{}','w') #",
    "'); __import__('os').system('touch {}'); ('",
    "' + str(__import__('os').system('touch {}')) + '",
]  # fmt: skip


@pytest.mark.parametrize("text", quick_part(HOSTILE))
def test_hostile_text_runs_nothing_as_answer_or_as_gold(grader, tmp_path, text):
    file = tmp_path / "X"
    hostile = text.format(file)
    assert grader.submit("77", hostile).result() is not Verdict.RIGHT
    assert grader.submit(hostile, "77").result() is not Verdict.RIGHT
    assert not file.exists()


@pytest.mark.parametrize(
    "attempt",
    [
        "open({file!r}, 'w')", "open('/proc/1/environ').read()", "open('/etc/passwd').read()", "os.system('touch {file}')", "os.fork()",
        "os.kill(os.getppid(), 9)", "os.execv('/bin/true', ['true'])", "socket.socket()", "os.listdir('/')", "subprocess.run(['true'])",
    ],
)  # fmt: skip
def test_even_a_program_in_the_cell_that_compares_can_do_nothing(worker, tmp_path, attempt):
    file = str(tmp_path / "X")
    program = f"import os, socket, subprocess\ndef f():\n    status = {attempt.format(file=file)}\n    return status if type(status) is int else 0"
    (outcome,) = worker.run(program, [""], Limits(), runs=1)
    assert outcome.status is Status.FORBIDDEN or (outcome.ok and outcome.value not in ("0", None) and "system" in attempt)
    assert not os.path.exists(file)


def test_a_cell_that_spoils_itself_spoils_no_other_answer(worker):
    """Should a text ever come to run, it may fake its own verdict, and no other's: every comparison is a fork of its own."""
    spoil = "import comparison\ncomparison.same = lambda gold, answer: True\ndef f():\n    return comparison.same('1', '2')"
    (spoilt,) = worker.run(spoil, [""], Limits(), runs=1)
    (honest,) = worker.run(module.PROGRAM, ["'1', '2'"], Limits(), runs=1)
    assert (spoilt.value, honest.value) == ("True", "False")


def test_a_killed_worker_is_replaced_and_its_comparison_repeated(of_fractions):
    with MathGrader(deadline_s=2.0) as grader:
        assert grader.submit("1/2", "0.5").result() is Verdict.RIGHT
        (before,) = grader.pids()
        os.kill(before, signal.SIGKILL)
        assert grader.submit("1/2", "0.5").result() is Verdict.RIGHT
        (after,) = grader.pids()
        assert after != before


def test_a_worker_killed_in_the_middle_of_a_comparison_is_replaced(of_fractions):
    with MathGrader(deadline_s=1.0) as hurried:
        hurried.submit("1", "2").result()
        future = hurried.submit("3", ENDLESS["a tower of powers"])
        time.sleep(0.3)
        os.kill(hurried.pids()[0], signal.SIGKILL)
        assert future.result() is Verdict.TIMEOUT
        assert hurried.submit("1/2", "0.5").result() is Verdict.RIGHT


def test_a_worker_that_always_dies_is_no_verdict(monkeypatch):
    with MathGrader() as grader:
        real = grader._plan
        monkeypatch.setattr(grader, "_plan", replace(real, first_frame={**real.first_frame, "modules": ["no_such_module"]}))
        with pytest.raises(ExecutorUnavailable):
            grader.submit("1", "2").result()


def test_many_threads_share_a_grader_with_a_short_queue(of_fractions):
    with MathGrader(workers=2, queue=2) as grader:

        def ask(number: int) -> Verdict:
            return grader.submit(str(number), f"{2 * number}/2" if number % 2 else str(number + 1)).result()

        with ThreadPoolExecutor(24) as threads:
            verdicts = list(threads.map(ask, range(1, 25)))
        assert len(grader.pids()) <= 2
    assert verdicts == [Verdict.RIGHT if number % 2 else Verdict.WRONG for number in range(1, 25)]


def test_a_callback_may_submit_more_although_the_queue_is_full(of_fractions):
    with MathGrader(queue=1) as grader:
        more = []
        done = threading.Event()

        def again(_):
            more.extend(grader.submit("1", "2") for _ in range(3))
            done.set()

        grader.submit("1", "3").add_done_callback(again)
        assert done.wait(30)
        assert [future.result() for future in more] == [Verdict.WRONG] * 3


def test_closing_is_bounded_and_leaves_no_process_and_no_open_question(of_fractions):
    grader = MathGrader(deadline_s=60.0)
    futures = [grader.submit("3", "9^{9^{9^{9}}}") for _ in range(3)]
    while not grader.pids():
        time.sleep(0.01)
    (pid,) = grader.pids()
    start = time.monotonic()
    grader.close()
    grader.close()
    assert time.monotonic() - start < 20
    for future in futures:
        with pytest.raises(ExecutorUnavailable):
            future.result()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ExecutorUnavailable):
        grader.submit("1", "2")


@pytest.mark.slow
def test_the_worker_dies_with_a_trainer_that_is_killed():
    script = """
    from azr_nemo.evaluation.maths.grader import MathGrader
    grader = MathGrader(deadline_s=60)
    grader.submit("1", "2").result()
    print(*grader.pids(), flush=True)
    grader.submit("3", "9^{9^{9^{9}}}").result()
    """
    trainer = process_trees.Process([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    pid = int(trainer.stdout.readline())
    time.sleep(0.3)
    trainer.kill()
    trainer.wait()
    until = time.monotonic() + 10
    while _running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _running(pid)


def test_without_math_verify_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(module.UserError, match="pip install 'azr-nemo\\[eval\\]'"):
        MathGrader()


def _running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
