"""What a run with ranks that only sample must have, and what is for it alone."""

import pytest

from azr_nemo.errors import UserError
from azr_nemo.planning.dry_run import check_run
from azr_nemo.planning.run_settings import load_settings

TINY = ["recipe=tiny-1n0g-megatron", "model.path=scratch:tiny"]


@pytest.mark.parametrize(
    ("settings", "ranks", "sentence"),
    [
        (["placement=split"], 2, r"placement=split with cluster\.sampler_ranks=0: at least one"),
        (["placement=split", "cluster.sampler_ranks=2"], 0, r"at least one of the run's ranks must sample and one must train"),
        (["cluster.sampler_ranks=1"], 2, r"cluster\.sampler_ranks=1 is for placement=split"),
        (["selfplay.staleness=1"], 1, r"selfplay\.staleness=1 is for placement=split"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(settings: list[str], ranks: int, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_run(load_settings([*TINY, *settings]), ranks)


def test_samplers_are_not_among_the_trainers_ranks() -> None:
    config = load_settings([*TINY, "placement=split", "cluster.sampler_ranks=3", "engine.tensor_parallel=2", "selfplay.staleness=1"])
    assert config.sampler_ranks == 3
    check_run(config, 2)  # five ranks: two of them train
    assert load_settings(TINY).sampler_ranks == 0
