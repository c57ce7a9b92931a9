"""Whether two answers are the same mathematics, by `math-verify`. Imported in the jail and nowhere else: parsing and simplifying what a model wrote
can take for ever, and sympy's parser ends in `eval` (here only of digits and operators, as far as we can see)."""

import logging
import re

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, Eq, MatrixBase

from .exact import same_function
from .notation import choice, is_sentence, latex, number_said

logging.disable(logging.CRITICAL)  # its warnings that nobody watches the clock: the jail does

E_NOTATION = re.compile(r"(?P<digits>[+-]?(?:\d+\.?\d*|\.\d+))[eE](?P<power>[+-]?\d+)(?![\w.])")
FORMULAS = re.compile(r"(?<!\\)\$\$?[^$]+\$\$?|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)
DOTS = re.compile(r"\\(?:ldots|cdots|dots|dotsc)(?![A-Za-z])|\.{3}")
QUANTIFIERS = ("\\forall", "\\exists")
# Its reader of plain expressions takes the last number out of any text, however wrong the formula: it is asked of sentences alone.
LATEX = [LatexExtractionConfig()]
SENTENCES = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
Reading = list[Basic | MatrixBase | str]

# One of each kind: the parser and sympy fill their caches and import late, and a comparison that is forked from here finds that done.
REHEARSAL = (
    ("\\frac{1}{2}", "0.5"), ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)"), ("p - q", "q - p"), ("[1,2)", "1 \\le x < 2"),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{bmatrix} 1 \\\\ 3 \\end{bmatrix}"), ("\\{1, 2\\}", "1 \\text{ and } 2"),
    ("x^2 + 2x + 1", "(x+1)^2"), ("\\sqrt[3]{2} \\sin^2 x", "\\log_2 8"), ("2x + y = 3", "y = 3 - 2x"), ("50\\%", "1.5e3"),
    ("\\text{Evelyn}", "Evelyn"), ("5 \\text{ cm}", "10,080"), ("1 + \\sqrt{3} i", "2 e^{i \\pi / 3}"), ("\\binom{5}{2}", "|{-10}|"),
    ("(-\\infty, 2) \\cup (3, \\infty)", "x < 2 \\text{ or } x > 3"), ("90^\\circ", "f(x) = \\int_0^1 x dx"), ("10!", "$100,\\frac{1}{100}$"),
    ("\\sqrt{1/n}", "So it is $1/\\sqrt{n}$."), ("√2", "½"),
)  # fmt: skip


def same(gold: str, answer: str) -> bool:
    """Whether the answer is right. gold and answer: LaTeX or plain text. Not symmetric where one is an assignment (`x = 5`)."""
    if (letter := choice(gold)) and choice(answer) == letter:
        return True
    right, given = latex(gold), latex(answer)
    if any(sign in given and sign not in right for sign in QUANTIFIERS):
        return False  # a claim for some values only
    if DOTS.search(right) or (DOTS.search(given) and not is_sentence(given)):
        return _squeezed(right) == _squeezed(given)
    return _agree(_read(gold, right), _read(answer, given))


def _agree(right: Reading, given: Reading) -> bool:
    if any(isinstance(each, Eq) and each.lhs == each.rhs for each in given) and not any(isinstance(each, Eq) for each in right):
        return False  # 5 = 5 says nothing
    if verify(right, given, timeout_seconds=None, allow_set_relation_comp=True):
        return True
    return bool(right and given and same_function(right[0], given[0]))


def _read(written: str, text: str) -> Reading:
    """What math-verify makes of a text: of a sentence as it was written; of all else as in a box, where the original puts it. text: its `latex`."""
    around = FORMULAS.sub(" ", text)
    said = None if around != text and re.search("[A-Za-z]{2}", around) else number_said(text.replace("$", ""))
    if said is None and is_sentence(around):
        found: Reading = parse(written, SENTENCES, parsing_timeout=None)
        if any(isinstance(each, (Basic, MatrixBase)) for each in found):
            return found
    text = (text if said is None else said).replace("\\$", "").replace("$", "").strip()
    text = re.sub(r"(?<=\d)\.(?=/)", "", text)  # -1./3
    number = E_NOTATION.match(text)
    if number:  # 4.5e33 is the number it means, not 4.5 times e times 33
        text = f"{number['digits']} \\times 10^{{{number['power']}}}{text[number.end() :]}"
    if percent := re.fullmatch(r"(.+?)\s*\\?%", text):
        # In a box the percent sign would be taken for a comment.
        return parse(f"${percent[1]}$%", LATEX, parsing_timeout=None)
    return parse(f"\\boxed{{{text}}}", LATEX, parsing_timeout=None)


def _squeezed(text: str) -> str:
    """A row that is not written out, as text: what its dots stand for cannot be known."""
    return re.sub(r"[\s{}$]|\\[,;! ]|\\quad", "", DOTS.sub("...", text))


for _gold, _answer in REHEARSAL:
    same(_gold, _answer)
