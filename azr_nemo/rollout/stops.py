"""Where a response ends before the model's own end token: at a stop string, or at a token that its request names.

A stop string is found wherever it stands in the response's text: inside one token, or over several. It does not reach back into the prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from azr_nemo.rollout.engine import Sample, SampleRequest

# The text of token ids, special tokens left out.
Decode = Callable[[Sequence[int]], str]
# Tokens that may have no text of their own (special ones) inside a stop string.
SILENT = 8


def completes(tokens: Sequence[int], request: SampleRequest, decode: Decode | None) -> bool:
    """Whether the last of a response's tokens completes a stop of its request; those before it do not."""
    if tokens[-1] in request.stop_token_ids:
        return True
    if not request.stop:
        return False
    assert decode is not None
    # Every token has a byte at least, so the string that the last one completes lies within these.
    window = max(len(string.encode()) for string in request.stop) + SILENT
    text = decode(tokens[-window:])
    return any(string in text for string in request.stop)


def cut(sample: Sample, request: SampleRequest, decode: Decode | None) -> Sample:
    """The sample as far as the token that completes its first stop: for engines that know no stop strings."""
    if not request.stop and not request.stop_token_ids:
        return sample
    end = first_stop(sample.token_ids, request, decode)
    if end is None:
        return sample
    newer = tuple((first, version) for first, version in sample.newer if first < end)
    return replace(sample, token_ids=sample.token_ids[:end], logprobs=sample.logprobs[:end], finished=True, newer=newer)


def first_stop(tokens: Sequence[int], request: SampleRequest, decode: Decode | None, known: int = 0) -> int | None:
    """How many tokens there are up to the one that completes the first stop. known: so many are known to complete none."""
    return next((end for end in range(known + 1, len(tokens) + 1) if completes(tokens[:end], request, decode)), None)


def check(request: SampleRequest, decode: Decode | None) -> None:
    """Raises ValueError for stops that cannot be: an empty string, or strings for an engine that was made without a tokenizer's `decode`."""
    if not all(request.stop):
        raise ValueError(f"a request's stop strings have a character at least, not {request.stop}")
    if request.stop and decode is None:
        raise ValueError("a request has stop strings, but the engine was made without `decode`")
