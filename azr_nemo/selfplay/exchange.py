"""What the self-play step and the engine say to each other: prompts out, completions in, a training batch at the end."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from azr_nemo.tasks.task import PromptText, Role, TaskType

# The six TRR++ groups, in the order of their ids.
GROUPS: tuple[tuple[Role, TaskType], ...] = tuple((role, kind) for role in Role for kind in TaskType)


@dataclass(frozen=True)
class Prompt:
    """A prompt for the model: `samples` completions are wanted, each of at most max_new_tokens tokens."""

    text: PromptText
    role: Role
    type: TaskType
    samples: int = 1
    max_new_tokens: int = 256
    temperature: float = 1.0


@dataclass(frozen=True)
class Completion:
    """One sampled continuation. text: the decoded response without special tokens and without the prompt's prefill.
    logprobs: the rollout engine's, one per response id, nan where it was not sampled. finished: ended by an end token or a stop string.
    weight_version: how many updates the weights had had that drew it."""

    text: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool
    weight_version: int = 0


@dataclass(frozen=True)
class PromptBatch:
    """What the step yields. `on_completion(i, k, completion)` is called as sample k of prompt i arrives, so that work can overlap with
    generation; the engine still sends back everything: one list of completions per prompt."""

    prompts: list[Prompt]
    phase: str  # propose | estimate | solve: for progress and timing
    on_completion: Callable[[int, int, Completion], None] | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """B rows of one update, in the order of their groups.

    prompt_ids, response_ids: B lists of token ids. rollout_logprobs: [B, T], right-padded with 0, nan where a response was not sampled.
    mask: [B, T] float, 1 on response tokens. advantages: [B, T], 0 where mask is 0. rewards: [B]. groups: [B], indices into GROUPS. T is the
    longest response.
    """

    prompt_ids: list[tuple[int, ...]]
    response_ids: list[tuple[int, ...]]
    rollout_logprobs: Tensor
    mask: Tensor
    advantages: Tensor
    rewards: Tensor
    groups: Tensor

    def take(self, rows: Tensor) -> "TrainingBatch":
        """These rows alone, by their numbers (int64), in this order; T stays."""
        chosen = rows.tolist()
        return TrainingBatch(
            prompt_ids=[self.prompt_ids[row] for row in chosen],
            response_ids=[self.response_ids[row] for row in chosen],
            rollout_logprobs=self.rollout_logprobs[rows],
            mask=self.mask[rows],
            advantages=self.advantages[rows],
            rewards=self.rewards[rows],
            groups=self.groups[rows],
        )
