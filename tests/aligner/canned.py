"""One self-play step with canned completions, the same in both engines' environments: a new task, a known one, something unreadable and a
response that is cut off, of each type; right and wrong answers."""

import re
import sys
from itertools import count
from pathlib import Path
from typing import Any

from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Completion, Prompt, PromptBatch
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.fences import tagged
from azr_nemo.tasks.task import PromptOptions, Proposal, Role, TaskType

sys.path.append(str(Path(__file__).parent.parent / "selfplay"))
from sample_tasks import adder, adder_task  # noqa: E402

OPTIONS = PromptOptions(style="completion", pairs=4)
LOGPROB = -3.0  # of every sampled token, as the rollout engine would say


def settings(model: str, run_dir: str, **engine: int) -> RunConfig:
    """The run's configuration in both environments. Each leaves out what is not its own."""
    config = RunConfig(run_dir=run_dir, platform="cpu")
    config.model.path, config.model.dtype = model, "float32"
    config.selfplay.batch_size, config.selfplay.references, config.selfplay.induction_pairs = 4, 2, 4
    config.selfplay.prompt_style, config.selfplay.proposer_weight = "completion", 0.5
    config.rollout.estimate_samples, config.rollout.temperature = 2, 0.7
    config.rollout.max_prompt_tokens, config.rollout.max_propose_tokens, config.rollout.max_solve_tokens = 400, 64, 48
    config.rollout.max_batch_rows = 4
    config.optim.entropy, config.optim.grad_clip = 0.01, 0.0
    # Means over rows rather than tokens: with those over tokens the loss of a batch is zero by construction, in any engine
    config.advantage.weighting = "sequence"
    config.logging.tensorboard = False
    for name, value in engine.items():
        setattr(config.engine, name, value)
    return config


def fill(buffer: TaskBuffer) -> None:
    for kind in TaskType:
        for number in range(1, 7):
            buffer.add(adder_task(number, kind), 0, seed=True)


class CannedEngine:
    """Answers prompts without a model. encode and end: the tokenizer's; what it says is part of what the two environments must agree on."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self._rows = {(role, kind): count() for role in Role for kind in TaskType}

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def encode_response(self, text: str) -> list[int]:
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]

    def generate(self, batch: PromptBatch, seed: int) -> list[list[Completion]]:
        return [[self._answer(batch.phase, prompt, k) for k in range(prompt.samples)] for prompt in batch.prompts]

    def _answer(self, phase: str, prompt: Prompt, k: int) -> Completion:
        if phase == "estimate":
            return self._completion(prompt, _answer(prompt, right=k == 0))
        row = next(self._rows[prompt.role, prompt.type])
        if phase == "propose":
            return self._completion(prompt, "nothing to read" if row == 2 else _proposal(prompt, new=row == 0), finished=row != 3)
        return self._completion(prompt, "nothing to read" if row == 2 else _answer(prompt, right=row != 1), finished=row != 3)

    def _completion(self, prompt: Prompt, text: str, finished: bool = True) -> Completion:
        ids = tuple(self.encode_response(text))
        ids = ids if finished else ids[:-2]
        return Completion(text, tuple(self.encode(prompt.text.full)), ids, (LOGPROB,) * len(ids), finished)


def _proposal(prompt: Prompt, new: bool) -> str:
    if prompt.type is TaskType.INDUCTION:
        (program,) = tagged(prompt.text.text, "python")
        inputs: tuple[str, ...] = ("11", "12", "13", "14") if new else ("1", "2", "3", "4")
    else:
        program, inputs = adder(100 if new else 1), ("1",)
    return KINDS[prompt.type].proposal_text(Proposal(prompt.type, program, inputs), OPTIONS)


def _answer(prompt: Prompt, right: bool) -> str:
    text = prompt.text.full
    if prompt.type is TaskType.INDUCTION:
        answer = adder(int(tagged(text, "output")[0]) - int(tagged(text, "input")[0]) if right else 999)
    elif not right:
        answer = "999"
    else:
        number = int((re.search(r"x \+ (\d+)", text) or ["", "0"])[1])
        given = int(tagged(text, "input" if prompt.type is TaskType.DEDUCTION else "output")[0])
        answer = str(given + number if prompt.type is TaskType.DEDUCTION else given - number)
    return KINDS[prompt.type].answer_text(answer, OPTIONS)
