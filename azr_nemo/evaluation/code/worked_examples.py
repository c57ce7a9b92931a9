"""Tasks with their answers that may stand before an item, written for this: what an untuned model scores with them is what knowing the form is worth.

They are from no benchmark. Each is one program that is asked in either direction.
"""

from azr_nemo.tasks import KINDS
from azr_nemo.tasks.marked import Marked, joined, template
from azr_nemo.tasks.task import PromptOptions, Task, TaskType

MOST = 4
PROGRAMS = (
    (
        "def f(words, size):\n    kept = []\n    for word in words:\n        if len(word) > size:\n            kept.append(word.upper())\n    return kept",
        "['pear', 'fig', 'melon'], 3",
        "['PEAR', 'MELON']",
    ),
    (
        "def f(n):\n    total = 0\n    while n > 0:\n        total += n % 10\n        n //= 10\n    return total",
        "4072",
        "13",
    ),
    (
        "def f(text):\n    counts = {}\n    for letter in text:\n        counts[letter] = counts.get(letter, 0) + 1\n    return counts",
        "'noon'",
        "{'n': 2, 'o': 2}",
    ),
    (
        "def f(rows):\n    best = []\n    for row in rows:\n        if sum(row) > sum(best):\n            best = row\n    return best[::-1]",
        "[[1, 2], [5, 0, 3], [4]]",
        "[3, 0, 5]",
    ),
)


def worked_examples(kind: TaskType, count: int, options: PromptOptions) -> Marked:
    """The first `count` of them as prompts with their answers, in the style of the options, which must be one whose answers end by themselves."""
    text: str = ""
    for program, given, output in PROGRAMS[:count]:
        task = Task(kind, program, (given,), (output,))
        answer = KINDS[kind].answer_text(output if kind is TaskType.DEDUCTION else given, options)
        text = joined(text, KINDS[kind].solve_prompt(task, options).full, answer.rstrip("\n"), template("\n\n\n"))
    return joined(text)
