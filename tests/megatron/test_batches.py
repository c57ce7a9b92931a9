import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.megatron.batches import pack

ROWS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(ROWS, st.integers(1, 40), st.integers(1, 4))
def test_every_learnt_token_is_in_exactly_one_micro_batch(rows: list[tuple[int, int]], limit: int, shares: int) -> None:
    prompts = [[100 * row + i for i in range(p)] for row, (p, _) in enumerate(rows)]
    responses = [[100 * row + 50 + i for i in range(r)] for row, (_, r) in enumerate(rows)]
    mask = torch.ones(len(rows), max(1, max(map(len, responses))))
    mask[0, 1::2] = 0
    seen = []
    for share in range(shares):
        batches = pack(prompts, responses, mask, limit, share, shares)
        assert batches
        for batch in batches:
            assert sum(batch.lengths) == batch.tokens.numel()
            assert batch.tokens.numel() <= limit or len(batch.lengths) == 1
            learnt = batch.mask.t()
            targets, previous = batch.targets.t()[learnt].tolist(), batch.tokens.t()[learnt].tolist()
            for row, step, target, before in zip(batch.rows.tolist(), batch.times.tolist(), targets, previous, strict=True):
                assert target == responses[row][step]
                assert before == [*prompts[row], *responses[row]][len(prompts[row]) + step - 1]
                seen.append((row, step))
    assert sorted(seen) == [(row, step) for row, r in enumerate(responses) for step in range(len(r)) if mask[row, step]]


def test_rows_lie_end_to_end_and_each_counts_from_zero() -> None:
    batches = pack([[1]] * 4, [[1] * 8, [1], [1] * 8, [1]], torch.ones(4, 8), 16)
    assert [batch.lengths for batch in batches] == [(8, 8), (1, 1)]
    assert batches[0].positions().tolist() == [[*range(8), *range(8)]]
    assert batches[0].packed(torch.device("cpu")).cu_seqlens_q.tolist() == [0, 8, 16]


def test_every_share_gets_rows_when_one_micro_batch_would_hold_them_all() -> None:
    assert [pack([[1]] * 4, [[1] * 8] * 4, torch.ones(4, 8), 1000, share, 2)[0].lengths for share in (0, 1)] == [(8, 8), (8, 8)]


@given(ROWS, st.integers(1, 40), st.integers(2, 4))
def test_a_filler_makes_every_micro_batch_divisible_and_teaches_nothing(rows: list[tuple[int, int]], limit: int, multiple: int) -> None:
    prompts, responses = [[1] * p for p, _ in rows], [[2] * r for _, r in rows]
    mask = torch.ones(len(rows), max(1, max(map(len, responses))))
    plain, filled = (pack(prompts, responses, mask, limit, multiple=many) for many in (1, multiple))
    for without, batch in zip(plain, filled, strict=True):
        assert batch.tokens.numel() == sum(batch.lengths) == -(-without.tokens.numel() // multiple) * multiple
        assert torch.equal(batch.rows, without.rows)
        assert batch.mask.sum() == without.mask.sum() == len(batch.rows)


def test_a_row_without_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt token"):
        pack([[]], [[1]], torch.ones(1, 1), 16)
