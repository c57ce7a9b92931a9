"""Text to token ids, so that special tokens come from templates alone: what a model wrote is data, whatever it spells.

A tokenizer finds its added tokens in any text. Here those that steer a model (the special ones, and those written like tags, as `<tool_call>` and
`<|fim_prefix|>`) are made of a template's own characters only (azr_nemo.tasks.marked). Nearly every text holds none elsewhere and is encoded as the
tokenizer does it. One that does goes through a copy of the tokenizer that does not know those tokens, in one piece, with a stand-in where the
template has one: so no other token changes.
"""

import json
import re
import secrets
from functools import cached_property
from typing import Any

from azr_nemo.tasks.marked import joined, pieces, spans_of, template
from azr_nemo.tasks.parsing import storable

TAG = re.compile(r"<[^<>\s]+>")


class Encoder:
    """Encodes for one tokenizer of transformers, by its own conventions."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self._steering: dict[str, int] = {token.content: id for id, token in added if token.special or TAG.fullmatch(token.content)}
        self._steering_ids = frozenset(self._steering.values())
        self._flags = {token.content: token for _, token in added}
        longest_first = sorted(filter(None, self._steering), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with the special tokens that this model puts around a text unless the template already has them."""
        begin = self.tokenizer.bos_token
        opened = bool(begin) and text.startswith(begin) and any(start == 0 and end >= len(begin) for start, end in spans_of(text))
        return self._ids(text, around=not opened)

    def encode_response(self, text: str) -> list[int]:
        """Token ids of a response and the end token; no special token around it."""
        return [*self._ids(text, around=False), self.tokenizer.eos_token_id]

    def _ids(self, text: str, around: bool) -> list[int]:
        if not _is_utf8(text):  # half a surrogate pair is no text to a tokenizer
            text = joined(*(template(storable(piece)) if own else storable(piece) for piece, own in pieces(text)))
        ids = list(self.tokenizer(text, add_special_tokens=around)["input_ids"])
        first, last = self._around if around else ([], [])
        stated = [id for _, _, id in self._stated(text)]
        if [id for id in ids if id in self._steering_ids] == [id for id in (*first, *stated, *last) if id in self._steering_ids]:
            return ids
        return [*first, *self._apart(text), *last]

    def _stated(self, text: str) -> list[tuple[int, int, int]]:
        """The tokens that the template states: start, end, id."""
        found = []
        for start, end in spans_of(text):
            for match in self._pattern.finditer(text, start, end):
                found.append((match.start(), match.end(), self._steering[match[0]]))
        return found

    def _apart(self, text: str) -> list[int]:
        """The ids of a text in which data spells a token."""
        parts: list[str] = []
        stated: list[int] = []
        place = 0
        for start, end, id in self._stated(text):
            flags = self._flags[text[start:end]]
            before = text[place:start]
            parts.append(before.rstrip() if flags.lstrip else before)
            stated.append(id)
            place = len(text) - len(text[end:].lstrip()) if flags.rstrip else end
        parts.append(text[place:])
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            return self._slowly(parts, stated)
        plain, stand_in, kept = self._plain
        left = iter(stated)
        ids = plain.encode(stand_in.join(parts), add_special_tokens=False).ids
        own = plain.token_to_id(stand_in)
        return [next(left) if id == own else kept.get(id, id) for id in ids]

    def _slowly(self, parts: list[str], stated: list[int]) -> list[int]:
        """With a tokenizer in Python, whose own method below knows no added tokens."""
        ids: list[int] = []
        for part, id in zip(parts, [*stated, None], strict=True):
            prepared, _ = self.tokenizer.prepare_for_tokenization(part)
            ids += self.tokenizer.convert_tokens_to_ids(self.tokenizer._tokenize(prepared)) if prepared else []
            ids += [] if id is None else [id]
        return ids

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and behind a text."""
        bare = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        whole = list(self.tokenizer("a")["input_ids"])
        start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:start], whole[start + len(bare) :]

    @cached_property
    def _plain(self) -> tuple[Any, str, dict[int, int]]:
        """The copy that does not know the steering tokens, the stand-in, and ids of its other added tokens that differ, to their own."""
        from tokenizers import AddedToken, Tokenizer

        nonce = secrets.token_hex(16)  # nobody can spell it
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        others = [token for token in state["added_tokens"] if token["content"] not in self._steering]
        state |= {"added_tokens": others, "post_processor": None, "truncation": None, "padding": None}
        _hide(state["model"], self._steering, nonce)
        plain = Tokenizer.from_str(json.dumps(state))
        stand_in = f"<{nonce}>"
        plain.add_special_tokens([AddedToken(stand_in, normalized=False)])
        kept = {int(id): int(token["id"]) for token in others if (id := plain.token_to_id(token["content"])) is not None}
        return plain, stand_in, kept


def _hide(model: dict[str, Any], names: dict[str, int], nonce: str) -> None:
    """Renames entries of a model's vocabulary, which some kinds of model would find in a text by themselves. The unknown token keeps its name."""
    vocabulary = model.get("vocab")
    hidden = {name for name in names if name != model.get("unk_token")}
    if isinstance(vocabulary, dict):
        model["vocab"] = {f"{nonce}{name}" if name in hidden else name: id for name, id in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[f"{nonce}{entry[0]}" if entry[0] in hidden else entry[0], *entry[1:]] for entry in vocabulary]


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
