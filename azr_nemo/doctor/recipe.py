"""The model of a run: whether it is at hand and whole, fits the layout and the memory, and agrees with its tokenizer."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from azr_nemo.doctor.findings import Finding, error, warning
from azr_nemo.errors import UserError
from azr_nemo.megatron.architecture import check_layout
from azr_nemo.models import cache_dir, missing_parts, tiny
from azr_nemo.models.shape import model_shape
from azr_nemo.planning.plan import make_plan
from azr_nemo.planning.sizing import ranks_of
from azr_nemo.planning.tables import nearest
from azr_nemo.rollout.tokenizer import Text
from azr_nemo.settings.schema import RunConfig

SAMPLE = 'def f(x: list[int]) -> str:\n    return "".join(str(n % 7) for n in x)  # größer, 日本\n'


def model(config: RunConfig) -> Iterator[Finding]:
    """Layout, memory, files and tokenizer of the recipe's model."""
    try:
        shape = model_shape(config.model)
        ranks = int(os.environ["WORLD_SIZE"]) - config.sampler_ranks if "WORLD_SIZE" in os.environ else ranks_of(config)
        check_layout(shape, config.engine.tensor_parallel, config.engine.pipeline_parallel, ranks)
    except UserError as problem:
        yield error("model", str(problem), "change the setting that the sentence names")
        return
    engine = config.engine
    yield Finding("layout", f"{ranks} ranks, tensor parallel {engine.tensor_parallel}, pipeline parallel {engine.pipeline_parallel}")
    yield size(config)
    path = config.model.path
    if path == "scratch:tiny":
        yield Finding("model", f"{path}, made from model.seed")
        yield from agreement(tiny.tokenizer(), shape)
        return
    directory = cache_dir() / "models" / path.removeprefix("embedded:") if path.startswith("embedded:") else Path(path).expanduser()
    if path.startswith("embedded:") and not directory.is_dir():
        yield Finding("model", f"{path}, not fetched yet: the first run does")
    elif missing := missing_parts(directory):
        mend = "get it with `hf download ORG/NAME --local-dir DIR` and give model.path=DIR"
        yield error("model", f"model.path={path} is not a Hugging Face model directory: {missing}", mend)
    else:
        yield Finding("model", f"{path}: whole, {shape.model_type}")
        try:
            text = Text(directory, shape)
        except UserError as problem:
            yield error("tokenizer", str(problem), "copy the tokenizer's files of this model there")
            return
        yield from agreement(text.tokenizer, shape, text.end_ids)


def size(config: RunConfig) -> Finding:
    """The plan's verdict."""
    try:
        plan = make_plan(config)
    except UserError as problem:
        return error("memory", str(problem), "change the setting that the sentence names")
    found = f"{plan.peak / 1e9:.1f} GB at the peak (computed) of {plan.size.capacity / 1e9:.0f} GB"
    return Finding("memory", found) if plan.fits else error("memory", found, nearest(config))


def agreement(tokenizer: Any, shape: PretrainedConfig, end_ids: list[int] | None = None) -> Iterator[Finding]:
    """Every id that the tokenizer or the settings name must be a row of the embedding, and a text must survive."""
    rows = shape.vocab_size
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        yield error(
            "tokenizer", f"it has ids up to {largest}, but the model's embedding only {rows} rows",
            "use the tokenizer that came with the model, or resize the embedding with transformers and save it",
        )  # fmt: skip
        return
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    ends = end_ids if end_ids is not None else [special["eos"]]
    outside = sorted({token for token in [*special.values(), *ends] if token is not None and not 0 <= token < rows})
    if outside:
        yield error(
            "special tokens", f"the settings name the ids {outside}, but the embedding has {rows} rows",
            "correct eos_token_id in config.json and generation_config.json",
        )  # fmt: skip
        return
    named = ", ".join(f"{name} {token}" for name, token in special.items() if token is not None)
    if special["eos"] is None:
        yield warning(
            "special tokens", f"the tokenizer has no end token ({named or 'none at all'})", "set eos_token in its tokenizer_config.json"
        )
    else:
        yield Finding("special tokens", f"{named}; a response ends with {' or '.join(map(str, ends))}")
    ids = tokenizer(SAMPLE, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if back != SAMPLE:
        yield warning(
            "tokenizer", f"a program does not survive encoding and decoding: {back[:60]!r}",
            "check that tokenizer.json is this model's: tasks would change on their way through the model",
        )  # fmt: skip
    else:
        yield Finding("tokenizer", f"{largest + 1} ids, {rows} rows in the embedding; a program of {len(ids)} tokens survives")
