"""The six maths suites of the original's table: which rows they are made of, and how a response to one is graded."""

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.evaluation.maths.grader import Verdict, final_answer, last_box, tidy
from azr_nemo.evaluation.suite import Grade, Group, Item, Tools

QUESTIONS = ("problem", "question", "Problem", "Question")
ANSWERS = ("answer", "final_answer", "Answer", "expected_answer")
IDS = ("unique_id", "id", "ID", "idx", "problem_id")
SOLUTIONS = ("solution", "Solution")
# What the original adds to a question whose answer is such a word.
CHOICES = {"true": "(True or False)", "false": "(True or False)", "yes": "(Yes or No)", "no": "(Yes or No)"}
OTHER = ("-271828.5", "314159.5")  # stated by `wrong`: no answer of any suite


@dataclass(frozen=True)
class MathSuite:
    """See `Suite`. Items keep the answer as text: {"answer": LaTeX}. file: where the original keeps it, below its evaluation/math_eval/eval/data."""

    name: str
    size: int
    file: str
    hub: str
    group: Group = "math"
    template: str = "r1"
    max_tokens: int = 16000

    @property
    def origin(self) -> str:
        return (
            f"take evaluation/math_eval/eval/data/{self.file} from github.com/LeapLabTHU/Absolute-Zero-Reasoner, "
            f"or download huggingface.co/datasets/{self.hub}"
        )

    def convert(self, rows: Iterable[Mapping[str, Any]], tools: Tools) -> list[Item]:
        """See `Suite.convert`. An answer may be a text, a number (27.0 is 27), a list (joined by commas), or the last box of the solution."""
        kept = list(rows)
        ids = [_first(row, IDS) for row in kept]
        if None in ids or len({str(one) for one in ids}) < len(ids):
            ids = list(range(len(kept)))
        return [self._item(row, number, one) for number, (row, one) in enumerate(zip(kept, ids, strict=True), start=1)]

    def submit(self, item: Item, response: str, tools: Tools) -> Future[Grade]:
        """See `Suite.submit`. Raises UserError when the tools have no maths grader."""
        answer = final_answer(response)
        graded: Future[Grade] = Future()
        if not answer:
            graded.set_result(Grade(False, "no_answer"))
            return graded
        if tools.maths is None:
            raise UserError(f"suite {self.name} needs a MathGrader in its tools: pip install 'azr-nemo[eval]'")

        def compared(future: Future[Verdict]) -> None:
            try:
                verdict = future.result()
            except BaseException as error:  # belongs to the one who waits, not to the grader's thread
                graded.set_exception(error)
            else:
                graded.set_result(Grade(verdict is Verdict.RIGHT, str(verdict), answer))

        tools.maths.submit(item.reference["answer"], answer).add_done_callback(compared)
        return graded

    def ideal(self, item: Item) -> str:
        """See `Suite.ideal`."""
        return f"as the book says </think> <answer>{item.reference['answer']}</answer>"

    def wrong(self, item: Item) -> str:
        """See `Suite.wrong`: the next integer, or a number that is no answer."""
        answer = item.reference["answer"]
        if re.fullmatch(r"-?\d{1,15}", answer):
            other = str(int(answer) + 1)
        else:
            other = next(number for number in OTHER if number != answer)
        return f"by guessing </think> <answer>{other}</answer>"

    def _item(self, row: Mapping[str, Any], number: int, one: Any) -> Item:
        question = _first(row, QUESTIONS)
        answer = _answer(row)
        for what, value, names in (("question", question, QUESTIONS), ("answer", answer, (*ANSWERS, "a \\boxed{} in solution"))):
            if not value:
                raise UserError(f"row {number} of {self.name} has no {what}: expected one of {', '.join(names)}; {self.origin}")
        asked = f"{question} {CHOICES[answer.lower()]}" if answer.lower() in CHOICES else str(question)
        return Item(f"{self.name}/{one}", asked.strip(), {"answer": answer})


def _answer(row: Mapping[str, Any]) -> str:
    value = _first(row, ANSWERS)
    if value is None:
        boxes = (last_box(text) for name in SOLUTIONS if isinstance(text := row.get(name), str))
        value = next((box for box in boxes if box), "")
        value = re.sub(r"\bnp\.(?=[a-z])", r"\\", value)  # minerva has one answer in numpy's words
    return tidy(", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else _text(value))


def _text(value: Any) -> str:
    """A single answer as text; empty for what is neither text nor a number."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return tidy(str(value))


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of these fields that holds something; 0 is something."""
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


MATH_SUITES = (
    MathSuite("math500", 500, "math500/test.jsonl", "HuggingFaceH4/MATH-500"),
    MathSuite("aime24", 30, "aime24/test.jsonl", "math-ai/aime24"),
    MathSuite("aime25", 30, "aime25/test.jsonl", "math-ai/aime25"),
    MathSuite("amc23", 40, "amc23/test.jsonl", "math-ai/amc23"),
    MathSuite("minerva", 272, "minerva_math/test.jsonl", "math-ai/minervamath"),
    MathSuite("olympiadbench", 675, "olympiadbench/test.jsonl", "math-ai/olympiadbench"),
)
