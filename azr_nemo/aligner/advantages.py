"""TRR++ over a batch whose rows are spread over data-parallel ranks: each of the six groups' baselines is that of all its rows."""

import torch
from nemo_aligner.utils import parallel_state
from torch import Tensor

from azr_nemo.algorithms.trr_plus_plus import trr_plus_plus
from azr_nemo.aligner.exchange import gather_columns


def global_trr_plus_plus(rewards: Tensor, mask: Tensor, groups: Tensor, weighting: str) -> Tensor:
    """Advantages [B, S] of this rank's rows, from its rewards [B], mask [B, S] and groups [B]. Collective over the data-parallel ranks, which
    all have B rows. A row without response tokens takes no part.

    What a group's statistics depend on is two numbers a row, its reward and its token count, so those are gathered and every rank computes
    the baselines that one rank would, in float64.
    """
    rank = parallel_state.get_data_parallel_rank()
    columns = torch.stack([rewards.double(), mask.sum(1).double(), groups.double()], dim=1)
    everyone = torch.cat(gather_columns(columns, parallel_state.get_data_parallel_group()))
    reward, tokens, group = everyone.unbind(1)
    # A row's tokens all have its advantage: one column of as many tokens stands for them.
    scale = trr_plus_plus(reward, tokens[:, None], group.long(), weighting) / tokens.clamp(min=1)[:, None]
    own = scale[rank * len(rewards) : (rank + 1) * len(rewards)]
    return own.to(rewards.dtype) * mask
