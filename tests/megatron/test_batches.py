from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.megatron.batches import MicroBatch, pack

ROWS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12)  # tokens of prompt and response


@given(ROWS, st.integers(1, 40), st.integers(1, 4), st.sampled_from([0, 10, 30]))
def test_every_learnt_token_is_in_exactly_one_micro_batch(rows: list[tuple[int, int]], limit: int, shares: int, longest_block: int) -> None:
    prompts = [[1000 * p + i for i in range(p)] for p, _ in rows]
    responses = [[100 * row + 50 + i for i in range(r)] for row, (_, r) in enumerate(rows)]
    mask = torch.ones(len(rows), max(1, max(map(len, responses))))
    mask[0, 1::2] = 0
    seen = []
    for share in range(shares):
        batches = pack(prompts, responses, mask, limit, share, shares, longest_block=longest_block)
        assert batches
        for batch in batches:
            assert sum(batch.lengths) == batch.tokens.numel()
            assert batch.tokens.numel() <= limit or len(batch.lengths) == 1
            assert all(sum(block) <= longest_block for block in batch.blocks if len(block) > 2)
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


@given(ROWS)
def test_a_token_sees_what_it_would_see_in_a_row_of_its_own(rows: list[tuple[int, int]]) -> None:
    prompts = [[1000 * p + i for i in range(p)] for p, _ in rows]
    responses = [[100 * row + 50 + i for i in range(r)] for row, (_, r) in enumerate(rows)]
    alone = {}
    for _, token, seen in seen_tokens(pack(prompts, responses, torch.ones(len(rows), 9), 40)):
        alone[token] = seen
    for position, token, seen in seen_tokens(pack(prompts, responses, torch.ones(len(rows), 9), 40, longest_block=40)):
        assert seen == alone[token]
        assert position == len(seen) - 1


def seen_tokens(batches: list[MicroBatch]) -> Iterator[tuple[int, int, list[int]]]:
    """Of every token its position, itself and what it sees."""
    for batch in batches:
        positions = iter(batch.positions()[0].tolist())
        for tokens, seen in zip(batch.tokens[0].split(batch.lengths), batch.packed(torch.device("cpu")).seen, strict=True):
            for i, token in enumerate(tokens.tolist()):
                yield next(positions), token, (tokens[: i + 1] if seen is None else tokens[seen[i]]).tolist()


def test_the_answers_to_one_prompt_lie_behind_a_single_copy_of_it() -> None:
    prompt = list(range(100))
    (batch,) = pack([prompt] * 3, [[1, 2], [3], [4, 5, 6]], torch.ones(3, 3), 1000, longest_block=512)
    assert batch.blocks == ((99, 2, 1, 3),)
    assert batch.tokens.tolist() == [[*prompt[:-1], 99, 1, 99, 99, 4, 5]]
    assert batch.positions().tolist() == [[*range(99), 99, 100, 99, 99, 100, 101]]


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
