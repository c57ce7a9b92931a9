"""`azr-nemo eval`: the checkpoint, the suites, one directory of results."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from azr_nemo import progress
from azr_nemo.errors import UserError
from azr_nemo.evaluation import prepare, results
from azr_nemo.evaluation.all_suites import SUITES, groups
from azr_nemo.evaluation.eval_settings import EvalSettings
from azr_nemo.evaluation.harness import SuiteRun
from azr_nemo.evaluation.in_training import Validation, subset
from azr_nemo.evaluation.maths.grader import MathGrader
from azr_nemo.evaluation.sampler import Model, find_checkpoint, fingerprint
from azr_nemo.evaluation.suite import Styled, Tools
from azr_nemo.evaluation.templates import in_style, prompt_text
from azr_nemo.observe.console import Console
from azr_nemo.sandbox.configured import make_executor
from azr_nemo.sandbox.executor import Executor
from azr_nemo.settings.schema import RunConfig


def evaluate(settings: EvalSettings, console: Console) -> Path:
    """Runs or goes on with an evaluation; the path of its results.json. Raises UserError and ExecutorUnavailable."""
    suites = [SUITES[name] for name in settings.suite]
    if settings.style != "r1" and (others := [suite.name for suite in suites if not isinstance(suite, Styled)]):
        raise UserError(f"style={settings.style} is for suites whose items are tasks of self-play, which {others[0]} is not: leave it out")
    data = Path(settings.data)
    items = {suite.name: prepare.load(data, suite) for suite in suites}
    path = find_checkpoint(settings.checkpoint, console.stage)
    folder = Path(settings.out) if settings.out else Path("evals") / _name(path)
    identity = {**settings.identity(), "checkpoint": str(path), "fingerprint": fingerprint(path)}
    _claim(folder, identity)
    with ExitStack() as stack:
        executor = stack.enter_context(make_executor(settings.executor))
        console.note(f"executor: {executor.describe()}")
        maths = (
            stack.enter_context(MathGrader(settings.math_deadline_s, allow_unjailed=settings.executor.allow_unjailed))
            if any(suite.group == "math" for suite in suites)
            else None
        )
        tools = Tools(executor, maths)
        console.note(f"checkpoint: {path}")
        with console.phase("load model") as phase, progress.heard_by(phase):
            model = Model(settings, folder / "vllm.log", console.note)
        stack.callback(model.close)
        figures = {}
        for suite in (in_style(suite, settings.style, model.text.tokenizer, settings.shots) for suite in suites):
            chosen = items[suite.name][settings.skip :][: settings.limit or None]
            rows = SuiteRun(suite, chosen, model, settings, tools, folder / f"{suite.name}.jsonl").run(console)
            figures[suite.name] = results.summarise(suite, rows, settings.pass_k)
    return results.write(folder, identity, figures)


def make_validation(config: RunConfig, tokenizer: Any, executor: Executor, fits: Callable[[str], bool]) -> Validation:
    """The benchmarks of `eval.suites` for a run, those of its kind of tasks in its own prompt style: always the same items, less those whose prompt
    does not fit. Raises UserError."""
    known = groups()
    names = list(dict.fromkeys(name for asked in config.eval.suites for name in known.get(asked, [asked])))
    for name in names:
        if name not in SUITES:
            raise UserError(f"eval.suites: {name} is unknown: there are {', '.join(SUITES)}")
    chosen = []
    for suite in (in_style(SUITES[name], config.selfplay.prompt_style, tokenizer) for name in names):
        items = [
            item
            for item in subset(prepare.load(Path(config.eval.data), suite), config.eval.limit)
            if fits(prompt_text(suite, item, suite.template, tokenizer).full)
        ]
        if not items:
            raise UserError(
                f"eval.suites: no item of {suite.name} fits rollout.max_prompt_tokens={config.rollout.max_prompt_tokens}: raise it"
            )
        chosen.append((suite, items))
    maths = MathGrader(allow_unjailed=config.executor.allow_unjailed) if any(suite.group == "math" for suite, _ in chosen) else None
    return Validation(chosen, Tools(executor, maths), tokenizer, config.rollout.max_solve_tokens)


def _name(path: Path) -> str:
    """`run-step_000010` for a run's checkpoint, else the directory's name."""
    path = path.resolve()
    return f"{path.parent.parent.name}-{path.name}" if path.parent.name == "checkpoints" else path.name


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Makes the directory for these settings, or checks that it was made for them."""
    file = folder / "settings.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(json.dumps(identity, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        before = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"out={folder} cannot be written ({error.strerror}): choose another with out=DIR") from None
    except ValueError:
        raise UserError(f"{file} is damaged: choose another directory with out=DIR") from None
    for key in sorted({*identity, *before}):
        if before.get(key) != identity.get(key):
            raise UserError(
                f"out={folder} holds an evaluation with {key}={before.get(key)}, not {identity.get(key)}: choose another with out=DIR"
            )
