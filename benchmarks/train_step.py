"""The training step against `transformers` with torch's fused AdamW, on the same rows of the same model, in one run.

    python benchmarks/train_step.py                  # SmolLM2-135M: rows of equal length, as self-play has them, and answers to one prompt

The peer is what one writes without us: a right-padded batch, logits of the response positions only, log-probabilities in fp32, weights and
moments in the model's dtype, which is the one that the hardware multiplies fast. Ours keeps fp32 master weights and gradients. The
contenders take turns; ratios are what to rely on.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM

from azr_nemo.megatron.actor import Actor
from azr_nemo.megatron.controller import Worker
from azr_nemo.models import resolve_model
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.selfplay.exchange import Example

Row = tuple[int, int, int]  # prompt and response length, and the prompt's number


def mixed(draw: random.Random, prompts: int, answers: int) -> list[Row]:
    """Rows of the default recipe's completion prompts, each with so many answers."""
    lengths = [min(300, 25 + int(draw.expovariate(1 / 35))) for _ in range(prompts)]
    return [(lengths[i], min(96, 4 + int(draw.expovariate(1 / 18))), i) for i in range(prompts) for _ in range(answers)]


CASES: dict[str, Callable[[random.Random], list[Row]]] = {
    "8 rows of 256 + 256 tokens": lambda draw: [(256, 256, i) for i in range(8)],
    "48 rows of self-play": lambda draw: mixed(draw, 48, 1),
    "8 answers to each of 18 tasks": lambda draw: mixed(draw, 18, 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = load_settings([f"run_dir={folder}/run", f"engine.threads={args.threads}", "engine.micro_batch_tokens=4096"])
        model_dir = resolve_model(config.model)
        actor = Worker(config, model_dir).actor
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=actor.dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.01, fused=True)
    print(f"SmolLM2-135M, {actor.dtype}, torch {torch.__version__}, {torch.get_num_threads()} threads; seconds of CPU a step, medians")
    for name, lengths in CASES.items():
        draw = random.Random(1)
        rows = examples(lengths(draw), draw)
        ours, theirs = take_turns([ours_step(actor, rows), peer_step(model, optimizer, rows)], args.repetitions)
        print(f"{name:<30} ours {ours:6.1f}   transformers {theirs:6.1f}   ratio {theirs / ours:.2f}x", flush=True)


def examples(rows: list[Row], draw: random.Random) -> list[Example]:
    """Random tokens; rows of one prompt begin alike."""
    prompts = {number: tuple(draw.choices(range(1000), k=length)) for length, _, number in rows}
    return [Example(prompts[number], tuple(draw.choices(range(1000), k=length))) for _, length, number in rows]


def ours_step(actor: Actor, rows: list[Example]) -> Callable[[], float]:
    return lambda: actor.supervise(rows, 1e-6)["loss"]


def peer_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, rows: list[Example]) -> Callable[[], float]:
    """Micro-batches of rows of like length, at most 4096 padded tokens each, as ours has at most 4096."""

    def run() -> float:
        order = sorted(rows, key=lambda row: len(row.prompt_ids) + len(row.response_ids))
        count, loss = sum(len(row.response_ids) for row in rows), 0.0
        while order:
            width = len(order[-1].prompt_ids) + len(order[-1].response_ids)
            batch, order = order[-max(1, 4096 // width) :], order[: -max(1, 4096 // width)]
            ids = torch.tensor([[*row.prompt_ids, *row.response_ids, *[0] * width][:width] for row in batch])
            learnt = torch.zeros_like(ids, dtype=torch.bool)
            for place, row in enumerate(batch):
                learnt[place, len(row.prompt_ids) : len(row.prompt_ids) + len(row.response_ids)] = True
            hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1][learnt[:, 1:]]
            logprobs = model.lm_head(hidden).float().log_softmax(-1).gather(-1, ids[:, 1:][learnt[:, 1:]][:, None])
            part = -logprobs.sum() / count
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return run


def take_turns(contenders: list[Callable[[], float]], repetitions: int) -> list[float]:
    """Median CPU seconds of each; a first round is not counted, and the first losses must agree, as it is the same model."""
    losses = [run() for run in contenders]
    if abs(losses[0] - losses[1]) > 0.05 * losses[1]:
        print(f"the losses differ: {losses}")
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(repetitions):
        for run, spent in zip(contenders, seconds, strict=True):
            start = time.process_time()
            run()
            spent.append(time.process_time() - start)
    return [statistics.median(spent) for spent in seconds]


if __name__ == "__main__":
    main()
