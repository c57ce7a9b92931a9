"""What a prompt wishes for is drawn evenly and does not repeat itself."""

import random
from collections import Counter

from azr_nemo.tasks.wishes import OPERATIONS, TYPES, wishes


def test_every_operation_and_type_is_as_likely():
    drawn = [wishes(random.Random(seed), 2) for seed in range(4000)]
    types, operations = Counter(first for first, *_ in drawn), Counter(name for _, *names in drawn for name in names)
    assert set(types) == set(TYPES)
    assert set(operations) == set(OPERATIONS)
    assert max(types.values()) < 1.5 * min(types.values())
    assert max(operations.values()) < 1.7 * min(operations.values())
    assert all(len(set(names)) == 2 for _, *names in drawn)


def test_no_wish_draws_nothing():
    rng = random.Random(1)
    state = rng.getstate()
    assert wishes(rng, 0) == ()
    assert rng.getstate() == state  # what is drawn after it stays what it was
