"""Proposals that wait for the next step, which estimates them: in memory, and as a note in the buffer, so that every checkpoint has them."""

from dataclasses import asdict
from typing import Any

from azr_nemo.selfplay.buffer import StoredTask, TaskBuffer
from azr_nemo.selfplay.composite_schedule import Given
from azr_nemo.selfplay.exchange import Completion
from azr_nemo.selfplay.proposer import Proposed, Proposer
from azr_nemo.tasks.marked import Marked, spans_of
from azr_nemo.tasks.task import PromptText, Task, TaskType

NOTE = "ahead"


class Ahead:
    """The proposals of one step to come. After a resume they are validated again, by the same program texts and so with the same result; nothing
    is sampled again."""

    def __init__(self, proposer: Proposer):
        self.proposer = proposer
        self._step, self._proposals = 0, list[Proposed]()

    @property
    def buffer(self) -> TaskBuffer:
        return self.proposer.buffer

    def put(self, step: int, proposals: list[Proposed]) -> None:
        """Keeps the proposals of `step`, which were sampled and are perhaps still being validated."""
        self._step, self._proposals = step, proposals
        self.buffer.write_note(NOTE, {"step": step, "proposals": [packed(proposed) for proposed in proposals]})

    def take(self, step: int) -> list[Proposed] | None:
        """Those of `step`; None when nobody has proposed for it, or for another step."""
        if self._step == step:
            return self._proposals
        note = self.buffer.read_note(NOTE)
        return [unpacked(entry, self.proposer) for entry in note["proposals"]] if note.get("step") == step else None


def packed(proposed: Proposed) -> dict[str, Any]:
    """A sampled proposal as JSON."""
    text = proposed.row.prompt.text
    return {
        "type": proposed.type.value,
        "text": _packed_text(text.text),
        "prefill": _packed_text(text.prefill),
        "stop": list(text.stop),
        "lines": proposed.lines,
        "references": [asdict(stored) for stored in proposed.references],
        "given": asdict(proposed.given),
        "completion": asdict(proposed.row.completions[0]),
    }


def unpacked(entry: dict[str, Any], proposer: Proposer) -> Proposed:
    """Undoes `packed`, and has the executor validate it."""
    given = entry["given"]
    proposed = proposer.proposed(
        TaskType(entry["type"]),
        PromptText(_text(entry["text"]), _text(entry["prefill"]), tuple(entry["stop"])),
        [_stored(reference) for reference in entry["references"]],
        Given(tuple(_stored(task) for task in given["tasks"]), tuple(given["texts"])),
        entry["lines"],
    )
    proposed.row.receive(0, Completion.of(entry["completion"]))
    return proposed


def _packed_text(text: str) -> list[Any]:
    """With the spans that are its template's."""
    return [str(text), [list(span) for span in spans_of(text)]]


def _text(entry: list[Any]) -> Marked:
    text, spans = entry
    return Marked(text, [(start, end) for start, end in spans])


def _stored(entry: dict[str, Any]) -> StoredTask:
    task = entry["task"]
    texts = {name: tuple(task[name]) for name in ("inputs", "outputs")}
    return StoredTask(
        **{**entry, "task": Task(**{**task, **texts, "type": TaskType(task["type"])}), "references": tuple(entry["references"])}
    )
