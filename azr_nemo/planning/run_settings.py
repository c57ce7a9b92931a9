"""A run's settings, checked against what the project has: estimators, losses, rewards, engines. Whatever starts a run begins here."""

from azr_nemo.algorithms.aggregation import AGGREGATIONS
from azr_nemo.algorithms.estimators import ESTIMATORS
from azr_nemo.algorithms.losses import LOSSES
from azr_nemo.errors import UserError
from azr_nemo.planning.aligner_layout import check_settings as check_aligner
from azr_nemo.rewards.intrinsic.combine import COMBINE
from azr_nemo.rewards.intrinsic.registry import components
from azr_nemo.rollout import ROLLOUTS
from azr_nemo.selfplay.drawing import MIXES, WEIGHTS
from azr_nemo.selfplay.schedules import DRAWS_FIRST, SCHEDULES
from azr_nemo.settings.compose import compose
from azr_nemo.settings.field import Registered
from azr_nemo.settings.listing import page
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks import KINDS
from azr_nemo.tasks.styles import STYLES

REGISTERED: Registered = {
    "advantage estimators": ESTIMATORS,
    "policy losses": LOSSES,
    "aggregations": AGGREGATIONS,
    "combinations": COMBINE,
    "mixes": MIXES,
    "prompt styles": STYLES,
    "task types": KINDS,
    "rollout engines": ROLLOUTS,
    "schedules": SCHEDULES,
    "samplings of references": ("uniform", *WEIGHTS, "depth"),
}


def load_settings(overrides: list[str], default_recipe: bool = True) -> RunConfig:
    """The resolved and checked configuration. overrides: `recipe=NAME|FILE.yaml`, GROUP=CHOICE and settings such as `optim.lr=1e-5`.
    default_recipe: take the default recipe when none is named, else no recipe at all. Raises UserError."""
    config = compose(overrides, REGISTERED, default_recipe)
    components(config.reward)
    _check_samples(config)
    _check_schedule(config)
    _check_wordings(config)
    if config.engine.name == "aligner":
        check_aligner(config)
    return config


def _check_samples(config: RunConfig) -> None:
    """What an estimator compares must be there to be compared."""
    selfplay, estimator = config.selfplay, ESTIMATORS[config.advantage.name]
    proposing = "proposals" if selfplay.proposals else "batch_size"
    for name, samples, of, needed in (
        ("propose_samples", selfplay.propose_samples, f"{proposing}={selfplay.proposed}", estimator.proposals and selfplay.train_propose),
        ("solve_samples", selfplay.solve_samples, f"batch_size={selfplay.batch_size}", estimator.answers),
    ):
        if needed and samples < 2:
            raise UserError(
                f"advantage.name={config.advantage.name} compares what answers the same prompt: set selfplay.{name} to 2 or more, "
                f"a divisor of selfplay.{of}"
            )


def _check_schedule(config: RunConfig) -> None:
    """Tasks that are to be solved must be there when they are drawn, and rows of older weights need a trainer that knows of them."""
    selfplay = config.selfplay
    if selfplay.schedule in DRAWS_FIRST and MIXES[selfplay.solve_from].needs_this_step:
        others = [name for name, mix in MIXES.items() if not mix.needs_this_step]
        raise UserError(
            f"selfplay.schedule={selfplay.schedule} draws the solver's tasks before this step's proposals are tasks, and "
            f"selfplay.solve_from={selfplay.solve_from} takes those first: choose selfplay.solve_from={', '.join(others)}, or "
            "selfplay.schedule=sequential"
        )
    if selfplay.schedule == "pipelined" and config.engine.name == "aligner":
        raise UserError(
            "selfplay.schedule=pipelined learns from rows of older weights by their sampler's log-probabilities, which engine=aligner does not know: "
            "choose merged or sequential"
        )


def _check_wordings(config: RunConfig) -> None:
    """A prompt style has so many wordings; 1 where it does not say how many."""
    selfplay = config.selfplay
    if selfplay.wordings > (most := getattr(STYLES[selfplay.prompt_style], "wordings", 1)):
        raise UserError(
            f"selfplay.wordings={selfplay.wordings}: selfplay.prompt_style={selfplay.prompt_style} words a solver's prompt in {most} way"
            f"{'s' * (most > 1)}: set selfplay.wordings={most}{' or less' * (most > 1)}"
        )


if __name__ == "__main__":
    print(page(RunConfig, REGISTERED), end="")
