"""Whether two answers are the same mathematics, by `math-verify`. Imported in the jail and nowhere else: parsing and simplifying what a model wrote
can take for ever, and sympy's parser ends in `eval` (here only of digits and operators, as far as we can see)."""

import logging
import re

from math_verify import parse, verify
from sympy import Basic, Float

logging.disable(logging.CRITICAL)  # its warnings that nobody watches the clock: the jail does

E_NOTATION = re.compile(r"(?P<digits>[+-]?(?:\d+\.?\d*|\.\d+))[eE](?P<power>[+-]?\d+)(?![\w.])")
# Beyond these sizes six decimals say nothing of a rounded number: all that are smaller would be equal, and hardly any that are larger.
SMALL, LARGE, CLOSE = 1e-3, 1e9, 1e-6

# One of each kind: the parser and sympy fill their caches and import late, and a comparison that is forked from here finds that done.
REHEARSAL = (
    ("\\frac{1}{2}", "0.5"), ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)"), ("p - q", "q - p"), ("[1,2)", "1 \\le x < 2"),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{bmatrix} 1 \\\\ 3 \\end{bmatrix}"), ("\\{1, 2\\}", "1 \\text{ and } 2"),
    ("x^2 + 2x + 1", "(x+1)^2"), ("\\sqrt[3]{2} \\sin^2 x", "\\log_2 8"), ("2x + y = 3", "y = 3 - 2x"), ("50\\%", "1.5e3"),
    ("\\text{Evelyn}", "Evelyn"), ("5 \\text{ cm}", "10,080"), ("1 + \\sqrt{3} i", "2 e^{i \\pi / 3}"), ("\\binom{5}{2}", "|{-10}|"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "x < 2 \\text{ or } x > 3"), ("90^\\circ", "f(x) = \\int_0^1 x dx"), ("10!", "$100,\\frac{1}{100}$"),
)  # fmt: skip


def same(gold: str, answer: str) -> bool:
    """Whether the answer is right. gold and answer: LaTeX or plain text, without delimiters. Not symmetric where one is an assignment (`x = 5`)."""
    right, given = _read(gold), _read(answer)
    if (agree := _rounded_agree(right, given)) is not None:
        return agree
    return bool(verify(right, given, timeout_seconds=None))


def _read(text: str) -> list[Basic | str]:
    """As the original gives an answer to math-verify, in a box; but with 4.5e33 read as the number it means, not as 4.5 times e times 33."""
    text = text.replace("\\$", "").replace("$", "").strip()
    text = re.sub(r"(?<=\d)\.(?=/)", "", text)  # -1./3
    text = re.sub(r"(?<=\d),\\!\s*(?=\d{3})", "", text)  # 11,\! 111
    number = E_NOTATION.match(text)
    if number:
        text = f"{number['digits']} \\times 10^{{{number['power']}}}{text[number.end() :]}"
    if percent := re.fullmatch(r"(.+?)\s*\\?%", text):
        # In a box the percent sign would be taken for a comment.
        return parse(f"${percent[1]}$%", parsing_timeout=None)
    return parse(f"\\boxed{{{text}}}", parsing_timeout=None)


def _rounded_agree(gold: list[Basic | str], answer: list[Basic | str]) -> bool | None:
    """Of a rounded gold number that is very small or very large, whether the answer is within a millionth of it; None when that is not the question."""
    if not gold or not answer or not isinstance(gold[0], Basic) or not isinstance(answer[0], Basic):
        return None
    if not gold[0].has(Float) or not gold[0].is_number:
        return None
    size = gold[0].evalf()
    if not size.is_real or size == 0 or SMALL <= abs(size) <= LARGE:
        return None
    difference = (answer[0] - gold[0]).evalf() if answer[0].is_number else None
    return None if difference is None or not difference.is_real else bool(abs(difference) <= CLOSE * abs(size))


for _gold, _answer in REHEARSAL:
    same(_gold, _answer)
