"""From the settings `reward.intrinsic.NAME` to components: the ones that come with the project by their name, any other by its `target`."""

import importlib
import importlib.util
from collections.abc import Callable

from azr_nemo.errors import UserError
from azr_nemo.rewards.intrinsic.complexity import complexity
from azr_nemo.rewards.intrinsic.component import Component, Reward
from azr_nemo.rewards.intrinsic.diversity import answer_diversity, input_diversity, output_diversity
from azr_nemo.rewards.intrinsic.edit_distance import edit_distance
from azr_nemo.rewards.intrinsic.halstead import halstead
from azr_nemo.rewards.intrinsic.shape_novelty import shape_novelty
from azr_nemo.settings.schema import IntrinsicConfig, RewardConfig
from azr_nemo.tasks.task import TaskType

VALUES = frozenset({TaskType.DEDUCTION, TaskType.ABDUCTION})
PAIRS = frozenset({TaskType.INDUCTION})
EVERY: frozenset[TaskType] = frozenset()

# Name: how to make it, of which task types it is, and the package that it needs.
BUILT_IN: dict[str, tuple[Callable[[bool], Reward], frozenset[TaskType], str]] = {
    "complexity": (lambda _: complexity, EVERY, "complexipy"),
    "edit_distance": (lambda _: edit_distance, VALUES, "rapidfuzz"),
    "halstead": (lambda _: halstead, EVERY, "radon"),
    "answer_diversity": (answer_diversity, VALUES, ""),
    "input_diversity": (input_diversity, PAIRS, ""),
    "output_diversity": (output_diversity, PAIRS, ""),
    "shape_novelty": (lambda _: shape_novelty, VALUES, ""),
}


def components(config: RewardConfig) -> list[Component]:
    """Those with a coefficient other than 0, in the order of their names. Raises UserError for a name or a target that is not known."""
    return [_component(name, part) for name, part in sorted(config.intrinsic.items()) if part.coef]


def _component(name: str, part: IntrinsicConfig) -> Component:
    if part.target:
        return Component(name, _imported(name, part.target), part.coef, part.max)
    if name not in BUILT_IN:
        raise UserError(
            f"reward.intrinsic.{name} is not one of {', '.join(BUILT_IN)}: for a reward of your own give reward.intrinsic.{name}.target=package.function"
        )
    make, types, package = BUILT_IN[name]
    if package and importlib.util.find_spec(package) is None:
        raise UserError(f"reward.intrinsic.{name} needs the package {package}: pip install 'azr-nemo[intrinsic]', or set its coef to 0")
    return Component(name, make(part.hierarchical), part.coef, part.max, types)


def _imported(name: str, target: str) -> Reward:
    """The user's own function, a part of the user's program like the command line itself."""
    module, _, attribute = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"reward.intrinsic.{name}.target={target} cannot be imported ({error}): give package.module.function") from None
    if not callable(found):
        raise UserError(f"reward.intrinsic.{name}.target={target} is no function of (task, references, history)")
    return found
