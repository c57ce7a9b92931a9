"""From a recipe and KEY=VALUE words to a `RunConfig`: Hydra composes the groups of conf/ and the recipe, the words are put on top."""

import difflib
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from azr_nemo.errors import UserError
from azr_nemo.settings.consistency import check_run
from azr_nemo.settings.extensions import extend
from azr_nemo.settings.field import Registered, at_home, leaves
from azr_nemo.settings.schema import RunConfig
from azr_nemo.settings.words import as_yaml as as_yaml
from azr_nemo.settings.words import literal, not_a_setting, put, sentence, split

PACKAGE = Path(__file__).absolute().parent.parent
# In a wheel `conf` and `recipes` lie inside the package, in a checkout beside it.
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
DEFAULT_RECIPE = "smollm2_135m-1n0g-megatron"
OWN = "own"  # what Hydra knows a recipe's file by: its name may hold what Hydra's grammar does not


class _Recipes(SearchPathPlugin):
    """Hydra looks for the group `recipes` beside conf/. As an override the path would have to fit Hydra's grammar."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("azr-nemo", f"file://{ROOT}")


Plugins.instance().register(_Recipes)
ConfigStore.instance().store(name="schema", node=RunConfig)


def recipes() -> list[str]:
    """The names of the recipes that come with the project."""
    return sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def compose(words: list[str], registered: Registered, default_recipe: bool = True) -> RunConfig:
    """The resolved and checked configuration. words: `recipe=NAME|FILE.yaml`, GROUP=CHOICE and settings such as `optim.lr=1e-5`; the last of a key
    holds. registered: the names of plug-ins by kind, see `field.About`. default_recipe: take the default recipe when none is named, else no recipe at all.
    Raises UserError."""
    pairs = split(words, "an override", "optim.lr=1e-5")
    recipe = dict(pairs).get("recipe", DEFAULT_RECIPE if default_recipe else None)
    overrides: list[str] = []
    name, known_as, own = "", "", dict[Any, Any]()
    if recipe is not None:
        name, known_as, own = _recipe(recipe)
        overrides.append(f"recipes={known_as}")
    _extend(pairs, own)
    groups = _groups(registered)
    for key, value in {key: value for key, value in pairs if key in groups and not value.startswith("{")}.items():
        if value not in groups[key]:
            raise UserError(f"{key}={value} is unknown: there are {', '.join(groups[key])}")
        overrides.append(f"{key}={value}")
    try:
        # A user's own file may be another one by now.
        node = _composed(ROOT, *overrides) if known_as == OWN else deepcopy(_composed_before(ROOT, *overrides))
        node.recipe = literal(name)
        for key, value in pairs:
            if key != "recipe" and (key not in groups or value.startswith("{")):
                put(node, RunConfig, key, value)
        config = OmegaConf.to_object(node)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(_sentence(error, groups)) from None
    assert isinstance(config, RunConfig)
    at_home(config)
    config.extensions = extend(config.extensions)
    check_run(config, registered)
    return config


def from_yaml(path: Path) -> RunConfig:
    """Reads a run's `config.yaml`. Raises UserError when it is none."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path)))
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not a run's configuration: {str(error).splitlines()[0]}") from None
    assert isinstance(config, RunConfig)
    extend(config.extensions)
    return config


def _composed(root: Path, *overrides: str) -> DictConfig:
    """What Hydra makes of the files of conf/ and recipes/ there, and of what has been stored beside them."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        return hydra_compose("config", overrides=list(overrides))


# It takes a third of a second, and a table of all recipes, or a search for settings that fit, asks for the same again and again.
_composed_before = cache(_composed)


def _extend(pairs: list[tuple[str, str]], recipe: dict[Any, Any]) -> None:
    """Imports the extensions that are given, those of the words before those of a recipe's file: names that they add are known from then on."""
    if "extensions" not in recipe and all(key != "extensions" for key, _ in pairs):
        return
    node = OmegaConf.structured(RunConfig)
    try:
        node.extensions = recipe.get("extensions", [])
        for key, value in pairs:
            if key == "extensions":
                put(node, RunConfig, key, value)
    except OmegaConfBaseException as error:
        raise UserError(sentence(error, RunConfig)) from None
    extend(node.extensions)


def _groups(registered: Registered) -> dict[str, list[str]]:
    """What GROUP=CHOICE may choose, by group: the files of conf/GROUP, and where a section has a setting `name`, each that it may be."""
    found = {path.name: {file.stem for file in path.glob("*.yaml")} for path in (ROOT / "conf").iterdir() if path.is_dir()}
    for leaf in leaves(RunConfig()):
        group, _, name = leaf.key.partition(".")
        if name == "name":
            for choice in set(leaf.about.words(registered)) - found.setdefault(group, set()):
                _known_by_name(group, choice)
                found[group].add(choice)
    return {group: sorted(choices) for group, choices in found.items()}


@cache
def _known_by_name(group: str, choice: str) -> None:
    ConfigStore.instance().store(group=group, name=choice, node={"name": choice})


def _recipe(value: str) -> tuple[str, str, dict[Any, Any]]:
    """The recipe's name, what Hydra knows it by, and what it says where it is the user's own file, which is read here."""
    if not value.endswith((".yaml", ".yml")):
        known = recipes()
        if value in known:
            return value, value, {}
        close = [name for name in known if name.startswith(value)] if value else []
        close = close or difflib.get_close_matches(value, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"recipe={value} is unknown: {hint}there are {', '.join(known)}, or give the path of a YAML file")
    try:
        path = Path(value).expanduser()
        node: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, OmegaConfBaseException, ValueError, RuntimeError, yaml.YAMLError) as error:
        raise UserError(f"recipe={value} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(node, dict):
        raise UserError(f"recipe={value} cannot be read: expected settings, such as `optim:` and below it `  lr: 1e-5`")
    ConfigStore.instance().store(group="recipes", name=OWN, node=node, package="_global_")
    return path.stem, OWN, node


def _sentence(error: Exception, groups: dict[str, list[str]]) -> str:
    """Hydra's and OmegaConf's messages in one line that names the key."""
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
    text = f"{error}\n{cause}"
    if match := re.search(r"Could not override '([\w./@]+)'", text):
        return not_a_setting(match[1], RunConfig)
    if match := re.search(r"(Key '\w+' not in|Value .* could not be converted to \w+)(?s:.*?)full_key: (\S+)", text):
        return not_a_setting(match[2], RunConfig) if match[1].startswith("Key") else f"{match[2]} has a value of the wrong type: {match[1]}"
    if match := re.search(r"Could not find '(\w+)/([^']+)'", text):
        return f"{match[1]}={match[2]} is unknown: there are {', '.join(groups.get(match[1], recipes()))}"
    if isinstance(error, OmegaConfBaseException):
        return sentence(error, RunConfig)
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())
