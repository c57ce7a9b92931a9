"""The settings of `azr-nemo eval`, from KEY=VALUE words, checked."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from azr_nemo.config import ExecutorConfig
from azr_nemo.errors import UserError
from azr_nemo.evaluation.templates import TEMPLATES
from azr_nemo.tasks.styles import STYLES


@dataclass
class EvalSettings:
    """Everything an evaluation depends on. A directory of results holds one such set: another one needs another `out`."""

    checkpoint: str = ""  # a Hugging Face directory, a run's checkpoint, a run directory for its latest, or embedded:NAME
    suite: list[str] = field(default_factory=list)  # names, or the groups code, math, reasoning, all
    data: str = "data/eval"  # what `azr-nemo data prepare` wrote
    out: str = ""  # where results go; evals/<checkpoint's name>
    samples: int = 1
    temperature: float = 0.0  # 0: greedy
    pass_k: list[int] = field(default_factory=lambda: [1])
    seed: int = 0
    template: str = "auto"  # auto: each suite's own
    style: str = (
        "r1"  # of the suites whose items are tasks: the prompt style that the model was trained in; another than r1 needs no template
    )
    max_tokens: int = 0  # 0: each suite's own, as the original's
    limit: int = 0  # items of each suite; 0: all
    rollout: str = "torch"  # torch | transformers
    max_batch_rows: int = 64
    max_prompt_tokens: int = 16384
    platform: str = "auto"
    dtype: str = "auto"
    math_deadline_s: float = 3.0
    executor: ExecutorConfig = field(default_factory=lambda: ExecutorConfig(wall_s=10.0, cpu_s=10.0, memory_mb=1024))

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is measured: not where, nor with how many workers."""
        whole: Any = OmegaConf.to_container(OmegaConf.structured(self))
        return {key: value for key, value in whole.items() if key not in ("out", "data", "suite", "executor", "max_batch_rows", "platform")}


def load_eval_settings(words: list[str], groups: dict[str, list[str]]) -> EvalSettings:
    """The checked settings. groups: names of suites by group, `all` included. Raises UserError naming the setting that makes no sense."""
    for word in words:
        if "=" not in word:
            raise UserError(f"{word!r} is not a setting: write key=value, for example checkpoint=runs/mine suite=[math500]")
    try:
        node = OmegaConf.merge(OmegaConf.structured(EvalSettings), OmegaConf.from_dotlist([_listed(word) for word in words]))
        settings: Any = OmegaConf.to_object(node)
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(_sentence(error)) from None
    settings.suite = _expanded(settings.suite, groups)
    _check(settings)
    return settings


def _listed(word: str) -> str:
    """`suite=math500` means a list of one."""
    key, _, value = word.partition("=")
    return f"{key}=[{value}]" if key in ("suite", "pass_k") and not value.startswith("[") else word


def _expanded(names: list[str], groups: dict[str, list[str]]) -> list[str]:
    known = groups["all"]
    if not names:
        raise UserError(f"suite is missing: choose from {', '.join(known)}, or a group: {', '.join(groups)}")
    chosen: list[str] = []
    for name in names:
        if name not in groups and name not in known:
            close = difflib.get_close_matches(name, [*known, *groups], n=1)
            raise UserError(f"suite={name} is unknown{f': did you mean {close[0]}?' if close else ''} There are {', '.join(known)}")
        chosen += [found for found in groups.get(name, [name]) if found not in chosen]
    return chosen


def _check(settings: EvalSettings) -> None:
    if not settings.checkpoint:
        raise UserError("checkpoint is missing: give a Hugging Face directory, a run's checkpoint or a run directory")
    _choice("template", settings.template, ["auto", *TEMPLATES])
    _choice("style", settings.style, list(STYLES))
    if settings.style != "r1" and settings.template != "auto":
        raise UserError(f"template={settings.template} and style={settings.style} both say how items are asked: leave one of them out")
    _choice("rollout", settings.rollout, ["torch", "transformers"])
    _choice("platform", settings.platform, ["auto", "cpu", "cuda"])
    _choice("dtype", settings.dtype, ["auto", "bfloat16", "float32"])
    for key, least in (("samples", 1), ("max_batch_rows", 1), ("max_tokens", 0), ("limit", 0), ("max_prompt_tokens", 1)):
        if getattr(settings, key) < least:
            raise UserError(f"{key}={getattr(settings, key)} is too small: it must be at least {least}")
    if settings.temperature < 0:
        raise UserError(f"temperature={settings.temperature} must not be below 0")
    if settings.samples > 1 and settings.temperature == 0:
        raise UserError(
            f"samples={settings.samples} with temperature=0 would be {settings.samples} times the same: set temperature=0.6 or samples=1"
        )
    if not settings.pass_k or min(settings.pass_k) < 1 or max(settings.pass_k) > settings.samples:
        raise UserError(f"pass_k={settings.pass_k}: each must lie between 1 and samples={settings.samples}")
    if settings.math_deadline_s <= 0:
        raise UserError(f"math_deadline_s={settings.math_deadline_s} must be above 0")


def _choice(key: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise UserError(f"{key}={value} is unknown: choose one of {', '.join(choices)}")


def _sentence(error: Exception) -> str:
    text = str(error).splitlines()[0]
    key = getattr(error, "full_key", None) or ""
    if "not in 'EvalSettings'" in text or "not in 'ExecutorConfig'" in text:
        known = list(OmegaConf.structured(EvalSettings))
        close = difflib.get_close_matches(key, known, n=1)
        return f"{key} is not a setting of eval{f': did you mean {close[0]}?' if close else ': there are ' + ', '.join(known)}"
    return f"{key} has a value of the wrong type: {text}" if key else text
