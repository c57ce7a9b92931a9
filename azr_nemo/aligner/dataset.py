"""The self-play step's prompts as NeMo-Aligner's dataset: what is behind PPOTrainer's `train_dataloader_builder`.

PPOTrainer builds a dataloader at the start to count its steps, and one whenever it samples. Here the first is over the rows that the whole
run will train on; the later ones are over the prompts that the step has just yielded, dealt to the data-parallel ranks by NeMo's own sampler.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from nemo_aligner.data.nlp.builders import build_dataloader
from nemo_aligner.utils import parallel_state
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

PADDING = -1  # the index of a row that only fills a micro-batch


@dataclass(frozen=True)
class PromptRow:
    """One sample that is wanted. index: its place among the samples of its batch."""

    index: int
    prompt_ids: tuple[int, ...]


class PromptRows(Dataset):
    """Prompts longest first, so that those of a micro-batch need little padding; filled up to whole micro-batches on every rank."""

    def __init__(self, rows: Sequence[PromptRow], multiple: int):
        self.rows = sorted(rows, key=lambda row: (-len(row.prompt_ids), row.index))
        shortest = self.rows[-1].prompt_ids
        self.rows += [PromptRow(PADDING, shortest)] * (-len(self.rows) % multiple)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> PromptRow:
        return self.rows[place]


class _WholeRun(Dataset):
    """So many rows; for counting steps alone."""

    def __init__(self, rows: int):
        self.count = rows

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> PromptRow:
        raise IndexError("the run's rows are sampled as it goes: there is nothing to read yet")


class PromptSource:
    """Callable as PPOTrainer's dataloader builder. `open` the prompts of a batch before it is called. pad: the token id that fills a row."""

    def __init__(self, steps: int, rows_per_step: int, micro_batch: int, pad: int):
        self.steps, self.rows_per_step, self.micro_batch, self.pad = steps, rows_per_step, micro_batch, pad
        self._rows: Sequence[PromptRow] = ()
        self._room = 0

    def open(self, rows: Sequence[PromptRow], room: int) -> None:
        """The next dataloaders are over these prompts, with room for so many tokens behind them; () for the whole run's again."""
        self._rows, self._room = rows, room

    def __call__(self, consumed_samples: int) -> DataLoader:
        """A dataloader whose batch sampler yields this data-parallel rank's micro-batches. consumed_samples is PPOTrainer's; a batch of
        prompts always begins at its first."""
        ranks = parallel_state.get_data_parallel_world_size()
        micro_batch = self.micro_batch if self._rows else 1
        dataset = PromptRows(self._rows, micro_batch * ranks) if self._rows else _WholeRun(self.steps * self.rows_per_step)
        return build_dataloader(
            OmegaConf.create({"model": {"seed": 0, "data": {"num_workers": 0}}}),
            dataset=dataset,
            consumed_samples=0,
            mbs=micro_batch,
            gbs=len(dataset) if self._rows else self.rows_per_step,
            collate_fn=partial(collate, pad=self.pad, room=self._room),
            load_gbs=False,
            use_random_sampler=False,
        )


def collate(rows: Sequence[PromptRow], pad: int, room: int) -> dict[str, Tensor]:
    """text [B, L + room] right-padded with `pad`, length [B] and index [B]. room: for the tokens to come, as NeMo's `generate` writes in place."""
    longest = max(len(row.prompt_ids) for row in rows)
    text = torch.full((len(rows), longest + room), pad, dtype=torch.int64)
    for place, row in enumerate(rows):
        text[place, : len(row.prompt_ids)] = torch.tensor(row.prompt_ids)
    lengths = torch.tensor([len(row.prompt_ids) for row in rows])
    return {"text": text, "length": lengths, "index": torch.tensor([row.index for row in rows])}
