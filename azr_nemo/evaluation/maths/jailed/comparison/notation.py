"""Answers as people write them (Unicode, Markdown, units, words around a number) in the LaTeX that math-verify reads. Texts in, texts out."""

import re
import unicodedata

SIGNS = {
    "−": "-", "–": "-", "—": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ", "÷": "/", "∕": "/", "⁄": "/", "∞": "\\infty ",
    "π": "\\pi ", "≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\neq ", "±": "\\pm ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ",
    "∅": "\\emptyset ", "°": "^\\circ ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}",
    "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "λ": "\\lambda ", "φ": "\\phi ", "ω": "\\omega ", "μ": "\\mu ", "…": "\\ldots ",
    "′": "'", "“": "", "”": "", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
}  # fmt: skip
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
ROOT = re.compile(r"(√|∛)\s*(\d+(?:\.\d+)?|\\[A-Za-z]+|[A-Za-z]|(?=[({]))")
MARKS = re.compile(r"(\*\*|__|\*|_|`)(?=\S)(.+?)(?<=\S)\1")
LEAD = re.compile(
    r"(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+|my\s+)?(?:final\s+)?(?:answer|result|solution)\s*(?:is\s*:?|:|=)\s*", re.IGNORECASE
)
GROUPS = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|,\\!|~)\s*(?=\d{3}(?!\d))")
TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
NUMBER = re.compile(
    r"(?<![\w.,/^])[-+]?(?:\\?\$\s*)?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+)?(?:\s*\\?%)?(?![\w^]|[.,/]\d|\s*[-+*/=^!<>])"
)
WORDS = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
SHORT = frozenset("a an am as at be by cm ft hr i if in is it kg km lb mg mi ml mm my oz of on pm sq so to us we".split())
# Words that make another value of the number beside them, or another claim.
CHANGING = frozenset(
    "not no or and but neither nor million billion trillion thousand hundred dozen percent factorial squared cubed pi sqrt root square half third "
    "thirds quarter quarters fourth fourths fifth fifths over plus minus times divided infinity inf sin cos tan sec csc cot log exp mod least most "
    "than less more greater fewer between under above below negative except without choose base power through until any every either each all max min"
    .split()
)  # fmt: skip
FUNCTIONS = frozenset(
    "sin cos tan sec csc cot log exp max min gcd lcm mod arcsin arccos arctan sqrt infinity infty cup cap dne and".split()
)
SHORT_SENTENCE = 8  # words; longer ones are taken by math-verify's own rules
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
COUNTS = {word: number for number, word in enumerate(ONES)} | {word: 10 * number for number, word in enumerate(TENS, start=2)}
COUNTS |= {f"{ten}-{one}": COUNTS[ten] + COUNTS[one] for ten in TENS for one in ONES[1:10]} | {"hundred": 100, "one hundred": 100}
# A short sentence with one of these states no number by its last digits: 5 million, at least 5, any number up to 5.
UNDECIDED = (CHANGING | {"anything"}) - {"not", "no", "and", "or", "but"}


def latex(text: str) -> str:
    """The text with every sign in LaTeX, without marks and without words that say that this is the answer."""
    text = "".join(unicodedata.normalize("NFKC", each) if "！" <= each <= "～" else each for each in text)
    text = re.sub(r"[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞⅐⅑⅒]", _fraction, text)
    text = re.sub(f"[{''.join(SUPERSCRIPTS)}]+", lambda found: f"^{{{''.join(SUPERSCRIPTS[each] for each in found[0])}}}", text)
    text = _roots("".join(SIGNS.get(each, each) for each in text))
    text = _unmarked(text.strip())
    text = LEAD.sub("", text, count=1) if LEAD.match(text) else text
    text = _unmarked(text.strip())
    text = GROUPS.sub("", text)
    if re.fullmatch(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?", text):
        text = text.replace(" ", "")
    text = re.sub(r"(?<=\d)\s*(?:[x*]|\\times|\\cdot)\s*(?=10\s*\^)", " \\\\times ", text)
    text = re.sub(r"(?<![A-Za-z\\])(pi|infinity|infty)(?![A-Za-z])", lambda found: {"pi": "\\pi "}.get(found[1], "\\infty "), text)
    text = re.sub(r"(?<=[\d}$])\s*~?\s*(?:\\text\{\s*)?(?:percent|per cent|percentage|pct)(?![a-z])\s*\}?", "\\\\%", text)
    if "\\" not in text:
        text = re.sub(r"\^\s*(-?\d+)", r"^{\1}", text)  # what is typed as 2^10 means no 2^1 times 0
    return text.strip()


def number_said(text: str) -> str | None:
    """The one number that a text says in plain words (`So there are 12 ways.`, `5 dollars`, `7 (seven)`, `seven`); None when it says anything else."""
    bare = TEXT.sub(r" \1 ", text.replace("~", " ")).replace("\\ ", " ").replace("\\,", " ").strip(" .")
    if (count := COUNTS.get(bare.lower())) is not None:
        return str(count)
    found = list(NUMBER.finditer(bare))
    if len(found) != 1:
        return None
    number = re.sub(r"\\?\$\s*|,", "", found[0][0]).strip()
    rest = f"{bare[: found[0].start()]} {bare[found[0].end() :]}"
    words = [word.lower() for word in WORDS.findall(rest)]
    if not words or re.search(r"[^\s.,:;!?'\"()’-]", WORDS.sub("", rest)):
        return None
    if any(word in CHANGING or (len(word) < 3 and word not in SHORT) for word in words):
        return None
    return number if all(str(COUNTS.get(word, number)) == number for word in words) else None


def is_sentence(text: str) -> bool:
    """Whether a text, its formulas taken out, has words that are no names of functions, and claims one value."""
    bare = re.sub(r"\\[A-Za-z]+(?:\s*\{[^{}]*\})?", " ", text)
    words = {word.lower() for word in re.findall(r"(?<![A-Za-z_{])[A-Za-z]{3,}", bare)}
    undecided = UNDECIDED | COUNTS.keys() if re.search(r"\d", bare) else UNDECIDED
    return bool(words - FUNCTIONS) and (len(words) > SHORT_SENTENCE or words.isdisjoint(undecided))


def choice(text: str) -> str | None:
    """The letter of a choice: `(B)`, `\\text{B}`, `B) 5 apples`; None for anything else."""
    bare = TEXT.sub(r"\1", text).strip()
    found = re.fullmatch(r"\(?([A-J])\)?|\(?([A-J])(?:\)|[.:])\s.*", bare)
    return (found[1] or found[2]) if found else None


def _fraction(found: re.Match[str]) -> str:
    over, _, under = unicodedata.normalize("NFKC", found[0]).partition("⁄")
    return f"\\frac{{{over}}}{{{under}}}"


def _unmarked(text: str) -> str:
    """Without Markdown's emphasis, where it encloses whole words; a product or a power stays."""
    for _ in range(4):
        changed = MARKS.sub(lambda found: found[2] if _stands_alone(text, found) else found[0], text)  # noqa: B023
        if changed == text:
            break
        text = changed
    return text


def _stands_alone(text: str, found: re.Match[str]) -> bool:
    before, after = text[: found.start()][-1:], text[found.end() :][:1]
    return before in ("", " ", "(") and after in ("", " ", ".", ",", ":", ")")


def _roots(text: str) -> str:
    """Root signs with what stands under them: a number, a letter, a command or what the next brackets hold."""
    while found := ROOT.search(text):
        command = "\\sqrt" if found[1] == "√" else "\\sqrt[3]"
        end, inside = found.end(), found[2]
        if not inside:
            close = _closing(text, end)
            inside, end = text[end + 1 : close], close + 1
        text = f"{text[: found.start()]}{command}{{{inside}}}{text[end:]}"
    return text


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed; the end of the text when it is not."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "({") - (text[position] in ")}")
        if depth == 0:
            return position
    return len(text)
