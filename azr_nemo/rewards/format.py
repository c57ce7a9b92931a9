"""The R1 response format: thoughts in <think> tags, then the answer in <answer> tags."""

import re

RESPONSE = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>", re.DOTALL)


def think_answer(response: str) -> str | None:
    """What stands between the answer tags of a response of the form `<think>..</think> <answer>..</answer>`, or None.

    Text after the answer is ignored, as in the reference; a second answer is not looked for.
    """
    match = RESPONSE.match(response)
    return match["answer"] if match else None
