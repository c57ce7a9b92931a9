"""Reads the final answer out of a response, as the original's evaluation does. Every function is linear in the length of what a model wrote."""

import re

from azr_nemo.evaluation.answer_tag import tagged_answer

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
# What stands between the boxes of one answer: `3 and 8`, `1 paper and 2 bins`, `y = 3, z = 8`; a word of GOES_ON begins another step.
NOISE = r"[\s$,;&(){}]|\\[,;:! ()\[\]]|\\q?quad|\\text\b"
BETWEEN = re.compile(rf"(?:{NOISE})*|(?=.*(?:\b(?:and|or)\b|[,;]))(?:{NOISE}|[A-Za-z=]|_\{{?\w)*", re.DOTALL)
GOES_ON = re.compile(r"\b(?:so|hence|then|thus|therefore|finally|but|which|gives|get|wait|actually|answer|is)\b")
MOST_BETWEEN = 60  # characters


def final_answer(response: str) -> str:
    """The last <answer>, or the boxes inside it; without one the last boxes; without one the first \\[..\\]; else an empty text.

    An answer that is not closed counts up to the end. A last box whose braces do not close is no answer: it was cut off, and an earlier box is a step.
    Boxes with no more than `and` or a comma between them are one answer, joined by commas.
    """
    answer = tagged_answer(response)
    if answer is not None:
        return tidy(last_boxes(answer) if BOX.search(answer) else _unfenced(answer))
    if BOX.search(response):
        return tidy(last_boxes(response))
    start = response.find("\\[")
    end = response.find("\\]", start + 2)
    return tidy(response[start + 2 : end]) if 0 <= start < end else ""


def last_boxes(text: str) -> str:
    """What the last box holds, and those right before it; empty when the last does not close."""
    starts = [found.start() for found in BOX.finditer(text)]
    held = _box_at(text, starts[-1]) if starts else None
    if held is None:
        return ""
    parts, first = [held[0]], starts[-1]
    for start in reversed(starts[:-1]):
        before = _box_at(text, start, first)
        if before is None or first - before[1] > MOST_BETWEEN or not _continues(text[before[1] : first]):
            break
        parts.append(before[0])
        first = start
    return ", ".join(dict.fromkeys(reversed(parts)))


def _continues(between: str) -> bool:
    return BETWEEN.fullmatch(between) is not None and GOES_ON.search(between) is None and not re.search(r"\n\s*\n", between)


def last_box(text: str) -> str | None:
    """What the last \\boxed{..} or \\fbox{..} holds, by balanced braces; None when there is no box or it does not close. `\\boxed 5` holds 5."""
    starts = [found.start() for found in BOX.finditer(text)]
    held = _box_at(text, starts[-1]) if starts else None
    return held[0] if held else None


def _box_at(text: str, start: int, end: int | None = None) -> tuple[str, int] | None:
    """What the box that begins at `start` holds, and where it ends; None when it does not close before `end`."""
    end = len(text) if end is None else end
    match = BOX.match(text, start)
    position = match.end() if match else start
    while position < end and text[position].isspace():
        position += 1
    if text[position : position + 1] != "{":
        word = re.compile(r"[^\s$]+").match(text, position, end)
        return (word[0], word.end()) if word else None
    depth, escaped = 0, False
    for place in range(position, end):
        character = text[place]
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[position + 1 : place], place + 1
    return None


def tidy(text: str) -> str:
    """An answer without what does not belong to it: the delimiters around it, a full stop, runs of white space."""
    text = " ".join(text.split())
    shorter = True
    while shorter:
        shorter = False
        stripped = text.rstrip(" .")
        if stripped != text and ".." not in text[len(stripped) :] and not stripped.endswith("\\right"):
            text, shorter = stripped, True
        for left, right in DELIMITERS:
            if len(text) >= len(left) + len(right) and text.startswith(left) and text.endswith(right):
                inside = text[len(left) : -len(right)]
                if left not in inside and right not in inside:  # `$1$, $2$` is not one formula
                    text, shorter = inside.strip(), True
    return text


def _unfenced(answer: str) -> str:
    """An answer without the Markdown fence around it."""
    found = re.fullmatch(r"\s*(```|~~~)[a-z]*\n(.*?)\n?\s*\1\s*", answer, re.DOTALL)
    return found[2] if found else answer
