"""Reads the final answer out of a response, as the original's evaluation does. Every function is linear in the length of what a model wrote."""

OPEN, CLOSE = "<answer>", "</answer>"
BOXES = ("\\boxed", "\\fbox")
DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))


def final_answer(response: str) -> str:
    """The last <answer>, or the box inside it; without one the last box; without one the first \\[..\\]; else an empty text.

    An answer that is not closed counts up to the end. A last box whose braces do not close is no answer: it was cut off, and an earlier box is a step.
    """
    if OPEN in response:
        answer = response.rpartition(OPEN)[2].partition(CLOSE)[0]
        return tidy((last_box(answer) or "") if _has_box(answer) else answer)
    if _has_box(response):
        return tidy(last_box(response) or "")
    start = response.find("\\[")
    end = response.find("\\]", start + 2)
    return tidy(response[start + 2 : end]) if 0 <= start < end else ""


def last_box(text: str) -> str | None:
    """What the last \\boxed{..} or \\fbox{..} holds, by balanced braces; None when there is no box or it does not close. `\\boxed 5` holds 5."""
    start, command = max((text.rfind(command), command) for command in BOXES)
    if start < 0:
        return None
    inside = text[start + len(command) :].lstrip()
    if not inside.startswith("{"):
        words = inside.partition("$")[0].split()
        return words[0] if words else None
    depth, escaped = 0, False
    for position, character in enumerate(inside):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return inside[1:position]
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


def _has_box(text: str) -> bool:
    return any(command in text for command in BOXES)
