"""The part of a response that is its answer, by the tags of the R1 format."""

OPEN, CLOSE = "<answer>", "</answer>"


def tagged_answer(response: str) -> str | None:
    """What the last <answer> that is closed and not empty holds; without one what follows the last <answer>; None when there is no tag.

    Words after the answer may name the tag, or open it once more, without taking the answer back.
    """
    for part in reversed(response.split(CLOSE)[:-1]):
        _, tag, inside = part.rpartition(OPEN)
        if tag and inside.strip():
            return inside
    return response.rpartition(OPEN)[2].partition(CLOSE)[0] if OPEN in response else None
