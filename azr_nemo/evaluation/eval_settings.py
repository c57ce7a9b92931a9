"""The settings of `azr-nemo eval`, from KEY=VALUE words, checked."""

import difflib
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from azr_nemo.errors import UserError
from azr_nemo.evaluation.code.worked_examples import MOST
from azr_nemo.evaluation.templates import TEMPLATES
from azr_nemo.settings.consistency import check_executor
from azr_nemo.settings.field import Registered, at_home, check, section, setting
from azr_nemo.settings.machine import VllmConfig
from azr_nemo.settings.schema import ExecutorConfig
from azr_nemo.settings.words import put, sentence, split
from azr_nemo.tasks.styles import STYLES

SHOWN = ("code", "completion")  # styles in which one prompt may follow another
REGISTERED: Registered = {"templates": TEMPLATES, "prompt styles": STYLES}


@dataclass
class EvalSettings:
    """Everything an evaluation depends on. A directory of results holds one such set: another one needs another `out`."""

    COMMAND: ClassVar[str] = "eval"
    checkpoint: str = setting(
        "", "a Hugging Face directory, a run's checkpoint, a run directory for its latest, or embedded:NAME", path=True
    )
    suite: list[str] = setting([], "names, or the groups code, math, reasoning, all")
    data: str = setting("data/eval", "what `azr-nemo data prepare` wrote", path=True, needed="give the directory")
    out: str = setting("", "where results go; empty: evals/<checkpoint's name>", path=True)
    samples: int = setting(1, "answers to each item", least=1)
    temperature: float = setting(0.0, "of the samples; 0: greedy", least=0, most=100)
    pass_k: list[int] = setting([1], "the k of pass@k, each at most samples", least=1)
    seed: int = setting(0, "of the samples", least=0, most=2**63 - 1)
    template: str = setting("auto", "of the prompts; auto: each suite's own", choices=("auto",), registered="templates")
    style: str = setting(
        "r1",
        "of the suites whose items are tasks: the prompt style that the model was trained in; another than r1 needs no template",
        registered="prompt styles",
    )
    shots: int = setting(0, "worked examples before each item, with style=code or completion", least=0, most=MOST)
    max_tokens: int = setting(0, "of a response; 0: each suite's own, as the original's", least=0)
    skip: int = setting(0, "items of each suite that are left out before the first that is asked", least=0)
    limit: int = setting(0, "items of each suite; 0: all", least=0)
    rollout: str = setting("torch", "the engine that samples", choices=("torch", "transformers", "vllm"))
    vllm: VllmConfig = section(VllmConfig)
    max_batch_rows: int = setting(64, "rows decoded together", least=1)
    max_prompt_tokens: int = setting(16384, "tokens of the longest prompt; an item with a longer one is wrong", least=1)
    platform: str = setting("auto", "auto: cuda where there is a GPU", choices=("auto", "cpu", "cuda"))
    dtype: str = setting("auto", "of the weights; see model.dtype", choices=("auto", "bfloat16", "float32"))
    math_deadline_s: float = setting(3.0, "CPU seconds of one comparison of answers", above=0, most=3600)
    executor: ExecutorConfig = section(ExecutorConfig, wall_s=10.0, cpu_s=10.0, memory_mb=1024, modules=["numpy"])

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is measured: not where, nor with how many workers."""
        left_out = ("out", "data", "suite", "executor", "max_batch_rows", "platform", "vllm")
        return {key: value for key, value in asdict(self).items() if key not in left_out}


def load_eval_settings(words: list[str], groups: dict[str, list[str]]) -> EvalSettings:
    """The checked settings. groups: names of suites by group, `all` included. Raises UserError naming the setting that makes no sense."""
    node = OmegaConf.structured(EvalSettings)
    for key, value in split(words, "a setting", "checkpoint=runs/mine suite=[math500]"):
        put(node, EvalSettings, key, value)
    try:
        settings: Any = OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise UserError(sentence(error, EvalSettings)) from None
    settings.suite = _expanded(settings.suite, groups)
    at_home(settings)
    _check(settings)
    return settings


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
    check(settings, REGISTERED)
    if settings.style != "r1" and settings.template != "auto":
        raise UserError(f"template={settings.template} and style={settings.style} both say how items are asked: leave one of them out")
    if settings.shots and settings.style not in SHOWN:
        raise UserError(f"shots={settings.shots} needs a style whose examples end by themselves: set style={' or style='.join(SHOWN)}")
    check_executor(settings.executor)
    if settings.samples > 1 and settings.temperature == 0:
        raise UserError(
            f"samples={settings.samples} with temperature=0 would be {settings.samples} times the same: set temperature=0.6 or samples=1"
        )
    if not settings.pass_k or max(settings.pass_k) > settings.samples:
        raise UserError(f"pass_k={settings.pass_k}: each must lie between 1 and samples={settings.samples}")
