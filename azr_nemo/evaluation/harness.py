"""Asks a checkpoint the items of a suite, grades what it answers, and keeps every graded answer: an evaluation that was killed goes on.

Items are asked in fixed batches. One that was not finished is asked again as a whole, so that its answers come from the same batch, bit for bit.
"""

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.evaluation.eval_settings import EvalSettings
from azr_nemo.evaluation.sampler import Model
from azr_nemo.evaluation.suite import Grade, Item, Suite, Tools
from azr_nemo.evaluation.templates import prompt_text
from azr_nemo.observe.console import Console
from azr_nemo.observe.jsonl import encode, read_rows
from azr_nemo.observe.view import Phase
from azr_nemo.rollout.engine import Sample, SampleRequest

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """An item as the model is asked it."""

    item: Item
    prefill: str
    request: SampleRequest


class SuiteRun:
    """One suite asked of one model. rows of `path`: id, sample, response, tokens, finished, right, reason, answer, parts."""

    def __init__(self, suite: Suite, items: Sequence[Item], model: Model, settings: EvalSettings, tools: Tools, path: Path):
        self.suite, self.model, self.settings, self.tools, self.path = suite, model, settings, tools, path
        self.too_long: list[Item] = []
        questions = [question for item in items if (question := self._question(item)) is not None]
        # Prompts of like length share a batch.
        questions.sort(key=lambda question: (len(question.request.prompt_ids), question.item.id))
        size = max(1, settings.max_batch_rows // settings.samples)
        self.batches = [questions[start : start + size] for start in range(0, len(questions), size)]
        self._lock = threading.Lock()

    def run(self, console: Console) -> list[Row]:
        """Every row of the suite, by item and sample. Raises ExecutorUnavailable, and UserError when the file cannot be written."""
        done = self._finished()
        total = sum(map(len, self.batches)) * self.settings.samples
        with console.phase(self.suite.name, total, len(done)) as phase, progress.heard_by(phase):
            try:
                with open(self.path, "a", encoding="utf-8") as file:
                    for batch in self.batches:
                        if (batch[0].item.id, 0) not in done:
                            done |= self._ask(batch, file, phase)
            except OSError as error:
                raise UserError(
                    f"{self.path} cannot be written ({error.strerror}): free some space and start the same command again"
                ) from None
        rows = [*done.values(), *(self._refused(item, k) for item in self.too_long for k in range(self.settings.samples))]
        return sorted(rows, key=lambda row: (row["id"], row["sample"]))

    def _question(self, item: Item) -> Question | None:
        name = self.suite.template if self.settings.template == "auto" else self.settings.template
        text = prompt_text(self.suite, item, name, self.model.text.tokenizer)
        ids = tuple(self.model.text.encode(text.full))
        room = self.model.context - len(ids)
        if len(ids) > self.settings.max_prompt_tokens or room < 1:
            self.too_long.append(item)
            return None
        longest = min(self.settings.max_tokens or self.suite.max_tokens, room)
        seed = int.from_bytes(hashlib.blake2b(f"{self.settings.seed}/{self.suite.name}/{item.id}".encode(), digest_size=8).digest()) >> 1
        request = SampleRequest(ids, self.settings.samples, longest, self.settings.temperature, seed, stop=text.stop)
        return Question(item, text.prefill, request)

    def _finished(self) -> dict[tuple[str, int], Row]:
        """The rows of the batches that were finished; all others are taken out of the file."""
        if not self.path.exists():
            return {}
        found = {(row["id"], row["sample"]): row for row in read_rows(self.path, "id", str)}
        kept: dict[tuple[str, int], Row] = {}
        for batch in self.batches:
            wanted = [(question.item.id, k) for question in batch for k in range(self.settings.samples)]
            if all(key in found for key in wanted):
                kept |= {key: found[key] for key in wanted}
        aside = self.path.with_suffix(".partial")
        aside.write_text("".join(f"{encode(row)}\n" for row in kept.values()), encoding="utf-8")
        aside.replace(self.path)
        return kept

    def _ask(self, batch: list[Question], file: Any, phase: Phase) -> dict[tuple[str, int], Row]:
        rows: dict[tuple[str, int], Row] = {}
        written: list[Future[None]] = []

        def arrived(index: int, k: int, sample: Sample) -> None:
            question = batch[index]
            response = question.prefill + self.model.text.decode(sample.token_ids)
            done: Future[None] = Future()
            written.append(done)

            def graded(future: "Future[Grade]") -> None:
                try:
                    row = _row(question.item, k, response, sample, future.result())
                    with self._lock:
                        rows[question.item.id, k] = row
                        file.write(f"{encode(row)}\n")
                        file.flush()
                        phase.advance(1)
                    done.set_result(None)
                except BaseException as error:  # belongs to the one who waits, not to the grader's thread
                    done.set_exception(error)

            self.suite.submit(question.item, response, self.tools).add_done_callback(graded)

        self.model.generate([question.request for question in batch], arrived)
        for future in written:
            future.result()
        return rows

    def _refused(self, item: Item, k: int) -> Row:
        nothing = Sample((), (), False)
        return _row(item, k, "", nothing, Grade(False, "prompt_too_long"))


def _row(item: Item, k: int, response: str, sample: Sample, grade: Grade) -> Row:
    return {
        "id": item.id, "sample": k, "response": response, "tokens": len(sample.token_ids), "finished": sample.finished,
        "right": grade.right, "reason": grade.reason, "answer": grade.answer, "parts": dict(grade.parts),
    }  # fmt: skip
