"""What a run with ranks that only sample must have, and what is for it alone."""

import pytest
from rich.console import Console as Terminal

from azr_nemo.errors import UserError
from azr_nemo.planning.dry_run import check_run
from azr_nemo.planning.plan import make_plan
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.planning.tables import parts_table, time_table

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


LARGE = ["recipe=qwen2_5_14b-1n8g-megatron", "engine.tensor_parallel=2"]
SPLIT = [*LARGE, "placement=split", "cluster.sampler_ranks=4", "selfplay.staleness=1"]


def test_a_plan_gives_trainers_no_sampler_and_samplers_no_trainer() -> None:
    both, split = make_plan(load_settings(LARGE)), make_plan(load_settings(SPLIT))
    assert (split.size.layout.ranks, split.size.samplers, split.size.replicas) == (4, 4, 4 // split.size.rollouts.tensor)
    assert both.sampler is None
    assert split.sampler is not None
    assert split.memory.replica == split.memory.cache == 0
    assert split.memory.optimizer == 2 * both.memory.optimizer  # shared by half as many
    assert split.sampler.state == split.sampler.replica == both.memory.replica
    assert split.sampler.cache > both.memory.cache
    assert split.peak == max(split.memory.peak, split.sampler.peak)


def test_a_plan_of_split_ranks_says_what_each_kind_needs_and_who_waits() -> None:
    terminal = Terminal(width=200)
    plan = make_plan(load_settings(SPLIT))
    with terminal.capture() as capture:
        terminal.print(parts_table(plan), time_table(plan))
    text = capture.get()
    for words in ("of the 4 ranks that train", "of the 4 that sample", "both at the same time, those that", "of all ranks' time is used"):
        assert words in text


def test_a_plan_in_which_all_ranks_sample_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"cluster\.sampler_ranks=8 leaves none of the 8 ranks"):
        make_plan(load_settings([*LARGE, "placement=split", "cluster.sampler_ranks=8"]))
    with pytest.raises(UserError, match=r"rollout\.tensor_parallel=2 does not divide the 3 GPUs of cluster\.sampler_ranks"):
        make_plan(
            load_settings([*LARGE, "placement=split", "cluster.sampler_ranks=3", "engine.tensor_parallel=1", "rollout.tensor_parallel=2"])
        )
