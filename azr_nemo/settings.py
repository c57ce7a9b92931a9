"""From a recipe's name and overrides to a checked `RunConfig`: the only place that sees Hydra."""

import difflib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from azr_nemo.algorithms.aggregation import AGGREGATIONS
from azr_nemo.algorithms.estimators import ESTIMATORS
from azr_nemo.algorithms.losses import LOSSES
from azr_nemo.config import ExecutorConfig, LoggingConfig, RunConfig
from azr_nemo.errors import UserError
from azr_nemo.rewards.intrinsic.combine import COMBINE
from azr_nemo.rewards.intrinsic.registry import BUILT_IN, components
from azr_nemo.selfplay.mixes import MIXES
from azr_nemo.selfplay.weights import WEIGHTS
from azr_nemo.tasks.styles import STYLES

PACKAGE = Path(__file__).parent
# In a wheel `conf` and `recipes` lie inside the package, in a checkout beside it.
ROOT = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent

CHOICES: dict[str, tuple[Any, ...]] = {
    "platform": ("auto", "cpu", "cuda"),
    "model.dtype": ("auto", "bfloat16", "float32"),
    "engine.name": ("megatron", "aligner"),
    "rollout.name": ("torch", "transformers", "nemo", "trtllm"),
    "executor.name": ("local", "sandbox_fusion"),
    "reward.learnability": ("one_minus_p", "four_p_one_minus_p"),
    "reward.induction": ("binary", "fraction"),
    "advantage.name": tuple(ESTIMATORS),
    "reward.intrinsic_combine": COMBINE,
    "selfplay.valid_program_filter": ("all", "non_one", "non_extremes"),
    "advantage.weighting": ("token", "sequence"),
    "optim.loss": tuple(LOSSES),
    "optim.aggregation": AGGREGATIONS,
    "optim.importance_sampling": ("off", "metrics", "on"),
    "selfplay.prompt_style": tuple(STYLES),
    "selfplay.reference_sampling": ("uniform", *WEIGHTS, "depth"),
    "selfplay.solve_from": tuple(MIXES),
    "logging.console": ("auto", "rich", "plain", "json"),
    "aligner.checkpoint_format": ("zarr", "torch_dist"),
}
AT_LEAST: dict[str, float] = {
    "engine.tensor_parallel": 1, "engine.pipeline_parallel": 1, "engine.micro_batch_tokens": 1, "engine.threads": 0,
    "rollout.estimate_samples": 2, "rollout.max_prompt_tokens": 1, "rollout.max_propose_tokens": 1, "rollout.max_solve_tokens": 1,
    "rollout.max_batch_rows": 1, "executor.workers": 0, "executor.memory_mb": 16, "executor.output_chars": 1,
    "executor.recycle_after": 1, "executor.queue": 1,
    "executor.concurrency": 1, "executor.attempts": 1, "optim.lr": 0, "optim.weight_decay": 0, "optim.grad_clip": 0,
    "optim.lr_warmup_steps": 0, "optim.lr_decay_steps": 0,
    "optim.mini_batches": 1, "optim.entropy": 0, "selfplay.longest_asked": 1, "selfplay.proposals": 0,
    "selfplay.steps": 1, "selfplay.batch_size": 2, "selfplay.references": 0,
    "selfplay.propose_samples": 1, "selfplay.solve_samples": 1, "selfplay.solve_window": 1, "selfplay.composite.chance": 0,
    "selfplay.composite.start": 1, "selfplay.composite.ramp": 0, "selfplay.composite.functions_min": 1, "selfplay.composite.grow_every": 0,
    "selfplay.induction_pairs": 2, "selfplay.proposer_weight": 0, "data.seed_factor": 1, "data.seed_batch": 1, "data.seed_rounds": 1, "warmup.steps": 0,
    "warmup.batch_size": 1, "warmup.programs": 100, "checkpoint.every": 1, "checkpoint.keep": 1,
    "checkpoint.keep_every": 0, "cluster.nodes": 1, "cluster.gpus_per_node": 0,
    "aligner.micro_batch": 1, "cluster.gpu_memory_gb": 1, "rollout.tensor_parallel": 1,
    "eval.every": 0, "eval.items": 0, "eval.limit": 0, "eval.stop_if_worse": 0,
    "logging.samples_every": 0, "logging.alarms.window": 1, "logging.alarms.diversity_fall": 0, "logging.alarms.duplicates": 0,
    "logging.alarms.format_fall": 0, "logging.alarms.rollout_kl": 0, "logging.alarms.entropy_fall": 0,
}  # fmt: skip
SHARES = tuple(f"logging.alarms.{name}" for name in ("diversity_fall", "duplicates", "format_fall", "entropy_fall"))
LONGEST_REMOTE_OUTPUT = 20_000  # characters of one output: four bytes each, packed as text, still fit the server's pipe
ABOVE_ZERO = (
    "rollout.temperature",
    "executor.wall_s",
    "executor.cpu_s",
    "executor.patience_s",
    "optim.eps",
    "optim.importance_cap",
    "optim.clip_high",
    "warmup.lr",
    "rollout.memory_fraction",
    "runtime.watchdog_s",
)


def recipes() -> list[str]:
    """The names of the recipes that come with the project."""
    return sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def load_settings(overrides: list[str], default_recipe: bool = True) -> RunConfig:
    """The resolved and checked configuration. overrides: `recipe=NAME|FILE.yaml` and Hydra overrides such as `optim.lr=1e-5`.
    default_recipe: take the default recipe when none is named, else no recipe at all."""
    overrides = [part for override in _own_rewards(overrides) for part in _recipe(override)]
    for override in overrides:
        if "=" not in override:
            raise UserError(f"{override!r} is not an override: write key=value, for example optim.lr=1e-5")
    if not default_recipe and not any(override.startswith("recipe=") for override in overrides):
        overrides.append("~recipes")
    ConfigStore.instance().store(name="schema", node=RunConfig)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            node = hydra_compose("config", overrides=[*overrides, f"hydra.searchpath=[file://{ROOT}]"])
        config = OmegaConf.to_object(node)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_sentence(error)) from None
    assert isinstance(config, RunConfig)
    check(config)
    return config


def as_yaml(config: RunConfig) -> str:
    """The configuration as YAML that can be read back by `from_yaml`."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(path: Path) -> RunConfig:
    """Reads a run's `config.yaml`."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path)))
    except (OSError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not a run's configuration: {str(error).splitlines()[0]}") from None
    assert isinstance(config, RunConfig)
    return config


def check(config: RunConfig) -> None:
    """Raises UserError for the first setting whose value makes no sense. Layouts are checked where the model is known."""
    node = OmegaConf.structured(config)
    for key, choices in CHOICES.items():
        if (value := OmegaConf.select(node, key)) not in choices:
            quotes = '; in YAML "on" and "off" need quotes' if "on" in choices else ""
            raise UserError(f"{key}={value} is unknown: choose one of {', '.join(map(str, choices))}{quotes}")
    for key, least in AT_LEAST.items():
        if (value := OmegaConf.select(node, key)) < least:
            raise UserError(f"{key}={value} is too small: it must be at least {least:g}")
    for key in SHARES:
        if (value := OmegaConf.select(node, key)) >= 1:
            raise UserError(f"{key}={value} is a share: it must be below 1, or 0 for off")
    for key in ABOVE_ZERO:
        if (value := OmegaConf.select(node, key)) <= 0:
            raise UserError(f"{key}={value} must be above 0")
    if not config.model.path:
        raise UserError("model.path is empty: give a Hugging Face directory, or choose a model with model=NAME")
    if not 0 <= config.logging.rollouts <= 1:
        raise UserError(f"logging.rollouts={config.logging.rollouts:g} is no share: give a number from 0 (write none) to 1 (write all)")
    _check_executor(config.executor)
    _check_engine(config)
    _check_samples(config)
    _check_composite(config)
    _check_wandb(config.logging)
    components(config.reward)
    if not config.selfplay.task_types or set(config.selfplay.task_types) - {"deduction", "abduction", "induction"}:
        raise UserError(f"selfplay.task_types={config.selfplay.task_types}: choose from deduction, abduction, induction")
    _check_loss(config)
    if config.selfplay.buffer_capacity < config.selfplay.batch_size * config.data.seed_factor:
        raise UserError(
            f"selfplay.buffer_capacity={config.selfplay.buffer_capacity} cannot hold the seeds "
            f"(selfplay.batch_size x data.seed_factor = {config.selfplay.batch_size * config.data.seed_factor}): raise it"
        )


def _check_loss(config: RunConfig) -> None:
    """The bounds of the loss, and rows that its mini-batches share out evenly."""
    optim, selfplay = config.optim, config.selfplay
    if not 0 < optim.clip_low <= 1:
        raise UserError(f"optim.clip_low={optim.clip_low} must be above 0 and at most 1, where it is no bound")
    if optim.dual_clip and optim.loss != "ppo":
        raise UserError(f"optim.dual_clip={optim.dual_clip} is for optim.loss=ppo: set it to 0 with optim.loss={optim.loss}")
    if optim.dual_clip and optim.dual_clip <= 1:
        raise UserError(f"optim.dual_clip={optim.dual_clip} must be above 1, or 0 for off")
    if selfplay.rows % optim.mini_batches:
        raise UserError(
            f"optim.mini_batches={optim.mini_batches} does not divide the {selfplay.rows} rows of a step "
            "((selfplay.batch_size + selfplay.proposals) x task types): choose a divisor"
        )


def _check_samples(config: RunConfig) -> None:
    """What an estimator compares must be there to be compared."""
    selfplay, estimator = config.selfplay, ESTIMATORS[config.advantage.name]
    proposing = "proposals" if selfplay.proposals else "batch_size"
    for name, samples, of, rows, needed in (
        ("propose_samples", selfplay.propose_samples, proposing, selfplay.proposed, estimator.proposals and selfplay.train_propose),
        ("solve_samples", selfplay.solve_samples, "batch_size", selfplay.batch_size, estimator.answers),
    ):
        if rows % samples:
            raise UserError(f"selfplay.{name}={samples} must divide selfplay.{of}={rows}")
        if needed and samples < 2:
            raise UserError(
                f"advantage.name={config.advantage.name} compares what answers the same prompt: set selfplay.{name} to 2 or more, "
                f"a divisor of selfplay.{of}={rows}"
            )
    if not 0 <= config.advantage.decay < 1:
        raise UserError(f"advantage.decay={config.advantage.decay} must be at least 0 and below 1")


def _check_composite(config: RunConfig) -> None:
    composite = config.selfplay.composite
    if composite.chance > 1:
        raise UserError(f"selfplay.composite.chance={composite.chance} is a probability: it must be at most 1")
    if composite.functions_max < composite.functions_min:
        raise UserError(
            f"selfplay.composite.functions_max={composite.functions_max} is below functions_min={composite.functions_min}: raise it"
        )
    if composite.chance and not {"deduction", "abduction"} & set(config.selfplay.task_types):
        raise UserError(
            f"selfplay.composite.chance={composite.chance} is for deduction and abduction, and selfplay.task_types has neither: "
            "add one, or set it to 0"
        )


def _check_engine(config: RunConfig) -> None:
    """Each engine has its own ways to sample."""
    samplers = {"megatron": ("torch", "transformers", "trtllm"), "aligner": ("nemo", "trtllm")}[config.engine.name]
    if config.rollout.name not in samplers:
        raise UserError(
            f"rollout={config.rollout.name} is not for engine={config.engine.name}: choose rollout={' or rollout='.join(samplers)}"
        )
    if config.engine.name == "aligner":
        from azr_nemo.aligner.layout import check_settings

        check_settings(config)
        if config.selfplay.prompt_style == "code":
            raise UserError(
                "selfplay.prompt_style=code ends answers by stop strings of each prompt, which engine=aligner's samplers have not: "
                "use engine=megatron, or prompt_style=r1, completion or chat"
            )


def _check_wandb(config: LoggingConfig) -> None:
    if config.wandb and not config.wandb_project:
        raise UserError("logging.wandb_project is empty: name the project of Weights & Biases that the run belongs to")
    if config.wandb_run_id and not re.fullmatch(r"[\w-]{1,64}", config.wandb_run_id):
        raise UserError(f"logging.wandb_run_id={config.wandb_run_id} is not an id: letters, digits, - and _, at most 64")
    for key in ("wandb_offline", "wandb_run_id"):
        if getattr(config, key) and not config.wandb:
            raise UserError(f"logging.{key} is for Weights & Biases, which is off: set logging.wandb=true, or leave it out")


def _check_executor(config: ExecutorConfig) -> None:
    remote = config.name == "sandbox_fusion"
    if remote and not config.endpoints:
        raise UserError("executor.endpoints is empty: give the servers' URLs, for example executor.endpoints=[http://localhost:8080]")
    for url in config.endpoints:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"executor.endpoints: {url!r} is not a server's URL, such as http://localhost:8080")
    if remote and config.modules:
        raise UserError(
            "executor.modules is for executor=local: which modules a server has is its own setting (azr-nemo sandbox serve --modules)"
        )
    if remote and config.output_chars > LONGEST_REMOTE_OUTPUT:
        raise UserError(
            f"executor.output_chars={config.output_chars} is more than a Sandbox-Fusion server passes on: at most {LONGEST_REMOTE_OUTPUT}"
        )


def _own_rewards(overrides: list[str]) -> list[str]:
    """`reward.intrinsic.NAME.KEY=VALUE` may name a reward of the user's own. Hydra lets a group add a name to a typed dictionary, but no override."""
    own = [part for part in overrides if (match := re.match(r"reward\.intrinsic\.(\w+)\.\w+=", part)) and match[1] not in BUILT_IN]
    if not own:
        return overrides
    node = OmegaConf.to_container(OmegaConf.from_dotlist(own))
    ConfigStore.instance().store(group="own_rewards", name="given", node=node, package="_global_")
    return [*(part for part in overrides if part not in own), "+own_rewards=given"]


def _recipe(override: str) -> list[str]:
    """`recipe=NAME` selects a recipe; `recipe=FILE.yaml` registers the file under its stem first."""
    if not override.startswith("recipe="):
        return [override]
    name = override.removeprefix("recipe=")
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            node = OmegaConf.to_container(OmegaConf.load(path))
        except (OSError, OmegaConfBaseException, ValueError) as error:
            raise UserError(f"recipe={name} cannot be read: {error}") from None
        name = path.stem
        ConfigStore.instance().store(group="recipes", name=name, node=node, package="_global_")
    elif name not in recipes():
        close = [r for r in recipes() if r.startswith(name)] or difflib.get_close_matches(name, recipes(), n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"recipe={name} is unknown: {hint}there are {', '.join(recipes())}, or give the path of a YAML file")
    return [f"recipes={name}", f"recipe={name}"]


def _sentence(error: Exception) -> str:
    """Hydra's and OmegaConf's messages in one line that names the key."""
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else error
    text = f"{error}\n{cause}"
    if match := re.search(r"Could not override '([\w./@]+)'", text):
        key = match.group(1)
        known = sorted(_keys(OmegaConf.structured(RunConfig)))
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or [k for k in known if k.endswith("." + key)][:1]
        return f"{key} is not a setting" + (f": did you mean {close[0]}?" if close else ": `azr-nemo train --dry-run` prints all of them")
    if match := re.search(r"Error merging override (\S+)", text):
        return f"{match.group(1)} has a value of the wrong type: {str(cause).splitlines()[0]}"
    if match := re.search(r"(Key '\w+' not in|Value .* could not be converted to \w+)(?s:.*?)full_key: (\S+)", text):
        return (
            f"{match.group(2)} is not a setting"
            if match.group(1).startswith("Key")
            else f"{match.group(2)} has a value of the wrong type: {match.group(1)}"
        )
    if match := re.search(r"Could not find '(\w+)/([^']+)'", text):
        choices = sorted(path.stem for path in (ROOT / "conf" / match.group(1)).glob("*.yaml"))
        return f"{match.group(1)}={match.group(2)} is unknown: there are {', '.join(choices)}"
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _keys(node: Any, prefix: str = "") -> list[str]:
    out = []
    for key in node:
        value = node._get_node(key)
        out += _keys(value, f"{prefix}{key}.") if OmegaConf.is_dict(value) else [f"{prefix}{key}"]
    return out


def world_size() -> int:
    """How many ranks this run has: torchrun's WORLD_SIZE, or 1."""
    return int(os.environ.get("WORLD_SIZE", "1"))
