"""A short supervised warm start on generated easy tasks: a departure from zero data that only very small models need.

A 135M model that was never shown the prompts can neither propose nor solve, so self-play has nothing to reward. A few minutes on generated
tasks give it a start. The weights are kept in the cache under a key of all that went into them.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import azr_nemo
from azr_nemo.errors import UserError
from azr_nemo.selfplay.exchange import Engine, Example
from azr_nemo.settings.schema import RunConfig, WarmupConfig
from azr_nemo.tasks.task import PromptOptions, Task
from azr_nemo.warmup.examples import examples

WARMING = 0.05  # share of the steps in which the learning rate rises
PATIENCE = 2000  # examples that may be too long before the limits are at fault
FLOOR = 0.05  # of the peak, where it ends


def lr_at(step: int, config: WarmupConfig) -> float:
    """Learning rate of step (from 0): a short linear rise, then a linear fall."""
    rise = max(1, round(WARMING * config.steps))
    if step < rise:
        return config.lr * (step + 1) / rise
    return config.lr * max(FLOOR, 1 - (step - rise) / max(1, config.steps - rise))


def batches(
    tasks: list[Task],
    options: PromptOptions,
    config: RunConfig,
    encode: Callable[[str], list[int]],
    encode_response: Callable[[str], list[int]],
) -> Iterator[list[Example]]:
    """`warmup.steps` batches of tokenised examples whose prompt and response are within the rollout's limits. encode_response adds the end
    token and nothing else. Raises UserError when the limits leave room for none."""
    limits = config.rollout.max_prompt_tokens, min(config.rollout.max_propose_tokens, config.rollout.max_solve_tokens) + 64
    stream = examples(tasks, options, config.selfplay.references, config.warmup.seed, composite_functions(config))
    for _ in range(config.warmup.steps):
        batch: list[Example] = []
        drawn = 0
        while len(batch) < config.warmup.batch_size:
            prompt, completion = next(stream)
            drawn += 1
            if not batch and drawn > PATIENCE:
                raise UserError(
                    f"rollout.max_prompt_tokens={limits[0]} leaves no room for the warm start's prompts: none of {PATIENCE} fits; raise it"
                )
            ids, response = encode(prompt.full), encode_response(completion)
            if prompt.stop:
                response = response[:-1]  # its stop string ends it
            if len(ids) <= limits[0] and len(response) <= limits[1]:
                batch.append(Example(tuple(ids), tuple(response)))
        yield batch


def warm_start(engine: Engine, stream: Iterator[list[Example]], config: WarmupConfig, on_step: Callable[[int, float], None]) -> None:
    """Trains the engine on the stream; on_step(step, loss) after each step."""
    for step, batch in enumerate(stream):
        on_step(step, engine.supervise(batch, lr_at(step, config))["loss"])


def composite_functions(config: RunConfig) -> int:
    """The most functions that self-play's composite prompts will give; 0 while there are none."""
    return config.selfplay.composite.functions_max if config.selfplay.composite.chance else 0


def warm_start_key(model_dir: Path, config: RunConfig) -> str:
    """Hash (16 hex digits) of all that decides the warm-started weights: the model's, the settings', the prompts' and the generator's."""
    digest = hashlib.sha256()
    for path in sorted(model_dir.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    selfplay = config.selfplay
    parts = [
        asdict(config.warmup),
        config.model.dtype,
        [selfplay.prompt_style, selfplay.references, selfplay.induction_pairs, composite_functions(config)],
        [config.rollout.max_prompt_tokens, config.rollout.max_propose_tokens, config.rollout.max_solve_tokens],
        [config.optim.weight_decay, config.optim.beta1, config.optim.beta2, config.optim.grad_clip],
    ]
    digest.update(json.dumps(parts, sort_keys=True).encode())
    package = Path(azr_nemo.__file__).parent
    for source in [*sorted((package / "tasks" / "prompts").glob("*.j2")), *sorted((package / "warmup").glob("*.py"))]:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
