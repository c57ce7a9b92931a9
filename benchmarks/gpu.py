"""A training step, a refit and a checkpoint of a random-weight model on a GPU: tokens/s, MFU, seconds, peak memory.

    python benchmarks/gpu.py                                    # the 1.5B shape of Qwen2.5 in bfloat16 on one GPU
    torchrun --nproc-per-node 2 benchmarks/gpu.py --tensor-parallel 2
    python benchmarks/gpu.py --shape tiny --platform cpu        # whether the script runs; its figures mean nothing

Rows are laid end to end in micro-batches, as in training; one step is forward, backward and optimizer over all rows. MFU counts the
products that the step needs, and none that recomputation repeats: six operations for each weight of the layers and token, for each weight
of the output layer and response token, and 6 x heads x head size x length^2 for causal attention, a layer and row; against 989 TFLOP/s a
GPU, the dense bfloat16 peak of H100 and H200.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from azr_nemo.errors import UserError
from azr_nemo.megatron import distributed
from azr_nemo.megatron.architecture import Architecture, read_architecture
from azr_nemo.megatron.controller import MegatronEngine, build_engine
from azr_nemo.models import tiny
from azr_nemo.selfplay.exchange import TrainingBatch
from azr_nemo.settings.schema import RunConfig

PEAK = 989e12
SHAPES = {
    # As in the config.json of Qwen2.5-1.5B.
    "qwen2-1.5b": {
        "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "intermediate_size": 8960,
        "vocab_size": 151936, "max_position_embeddings": 32768, "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
        "vocab_size": 512, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    },
}  # fmt: skip
WAIT_S = 900.0  # for rank 0 to write the model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2-1.5b")
    parser.add_argument("--platform", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rows", type=int, help="of a step; 96, or 8 of the tiny shape")
    parser.add_argument("--prompt", type=int, help="tokens of a row's prompt; 512, or 24")
    parser.add_argument("--response", type=int, help="tokens of a row's response; 512, or 24")
    parser.add_argument("--micro-batch-tokens", type=int, default=16384)
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--pipeline-parallel", type=int, default=1)
    parser.add_argument("--sequence-parallel", action="store_true")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--distributed-optimizer", action="store_true")
    parser.add_argument("--fp32-logits", action="store_true")
    parser.add_argument("--repetitions", type=int, default=5, help="medians are of these, after one that is not counted")
    parser.add_argument("--folder", type=Path, help="where the model and a checkpoint are written; a temporary one, in a job of one")
    args = parser.parse_args()
    small = args.shape == "tiny"
    args.rows, args.prompt, args.response = (
        args.rows or (8 if small else 96), args.prompt or (24 if small else 512), args.response or (24 if small else 512),
    )  # fmt: skip
    try:
        if args.platform == "cuda" and not torch.cuda.is_available():
            raise UserError(
                f"--shape {args.shape} is to be measured on a GPU and torch sees none: run it where one is, or try the script with "
                "--shape tiny --platform cpu"
            )
        if args.folder is None and distributed.world_size() > 1:
            raise UserError("--folder is needed in a job of several ranks: a directory that all of them see")
        with tempfile.TemporaryDirectory() as temporary:
            measure(args, args.folder or Path(temporary))
    except UserError as error:
        print(f"benchmarks/gpu.py: {error}", file=sys.stderr)
        sys.exit(2)


def measure(args: argparse.Namespace, folder: Path) -> None:
    engine = build_engine(configuration(args), model_directory(args, folder / args.shape))
    if engine is None:
        return
    architecture = read_architecture(engine.worker.hf_config)
    batch = rows_of(args, architecture.vocab)
    steps = [engine.update(batch) for _ in range(args.repetitions + 1)][1:]
    refits = [seconds(engine.refit) for _ in range(args.repetitions)]
    checkpoint = folder / "checkpoint"
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir(parents=True)
    saving = seconds(lambda: engine.save(checkpoint))
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    step = statistics.median(metrics["update_s"] for metrics in steps)
    tokens = args.rows * (args.prompt + args.response - 1)
    report(args, engine, architecture, step, tokens)
    spread = f"{min(m['update_s'] for m in steps):.3f} to {max(m['update_s'] for m in steps):.3f}"
    rate = operations(architecture, args) / step
    print(f"| training step | {step:.3f} s ({spread}) |")
    print(f"| tokens of rows a second | {tokens / step:,.0f} |")
    mfu = f"{rate / (PEAK * distributed.world_size()):.1%}" if args.platform == "cuda" else "not of a CPU"
    print(f"| operations a second | {rate / 1e12:.3g} TFLOP/s, MFU {mfu} |")
    print(f"| refit of the rollout engine | {statistics.median(refits):.3f} s |")
    print(f"| checkpoint, written and synced | {saving:.3f} s, {size / 1e9:.2f} GB |")
    if args.platform == "cuda":
        print(f"| peak GPU memory of rank 0 | {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB |")
    engine.close()


def report(args: argparse.Namespace, engine: MegatronEngine, architecture: Architecture, step: float, tokens: int) -> None:
    device = torch.cuda.get_device_name() if args.platform == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    where = engine.worker.actor.platform
    layers = "TransformerEngine" if where.transformer_engine and args.dtype == "bfloat16" else "Megatron's own"
    weights = sum(layer_and_head(architecture))
    print(f"command: {' '.join(sys.orig_argv[1:] if not os.environ.get('WORLD_SIZE') else ['torchrun ...', *sys.argv])}")
    print(
        f"{args.shape} ({weights / 1e9:.3f} B multiplied weights), {args.dtype}, {distributed.world_size()} x {device}, layers: {layers};"
    )
    print(
        f"{args.rows} rows of {args.prompt} + {args.response} tokens, {tokens:,} a step; torch {torch.__version__}, Python {platform.python_version()}"
    )
    print("\n| what | measured |\n|---|---|")


def configuration(args: argparse.Namespace) -> RunConfig:
    config = RunConfig(platform=args.platform)
    config.model.dtype, config.model.fp32_logits = args.dtype, args.fp32_logits
    engine = config.engine
    engine.tensor_parallel, engine.pipeline_parallel = args.tensor_parallel, args.pipeline_parallel
    engine.sequence_parallel, engine.recompute = args.sequence_parallel, args.recompute
    engine.distributed_optimizer, engine.micro_batch_tokens = args.distributed_optimizer, args.micro_batch_tokens
    config.rollout.max_batch_rows = 8
    return config


def model_directory(args: argparse.Namespace, directory: Path) -> Path:
    """A Hugging Face directory of the shape with random weights, written by rank 0 alone, aside and renamed."""
    deadline = time.monotonic() + WAIT_S
    while distributed.rank() and not directory.is_dir():
        if time.monotonic() > deadline:
            raise UserError(f"rank 0 had not written {directory} after {WAIT_S:.0f} s: does every rank see --folder?")
        time.sleep(0.5)
    if not directory.is_dir():
        from transformers import AutoModelForCausalLM, Qwen2Config

        aside = directory.with_name(f".{directory.name}.writing")
        shutil.rmtree(aside, ignore_errors=True)
        words = tiny.tokenizer()
        config = Qwen2Config(**SHAPES[args.shape], eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, bos_token_id=None)
        AutoModelForCausalLM.from_config(config, dtype=getattr(torch, args.dtype)).save_pretrained(aside)
        words.save_pretrained(aside)
        aside.rename(directory)
    return directory


def rows_of(args: argparse.Namespace, vocabulary: int) -> TrainingBatch:
    draw = torch.Generator().manual_seed(1)

    def ids(count: int) -> list[tuple[int, ...]]:
        return [tuple(row) for row in torch.randint(0, vocabulary, (args.rows, count), generator=draw).tolist()]

    shape = args.rows, args.response
    return TrainingBatch(
        prompt_ids=ids(args.prompt), response_ids=ids(args.response), rollout_logprobs=torch.zeros(shape), mask=torch.ones(shape),
        advantages=torch.randn(shape, generator=draw), rewards=torch.zeros(args.rows), groups=torch.zeros(args.rows, dtype=torch.long),
        versions=torch.full((args.rows,), 1_000_000),  # drawn by the newest weights
    )  # fmt: skip


def layer_and_head(a: Architecture) -> tuple[int, int]:
    """Weights that a token is multiplied with, in the layers and in the output layer."""
    attention = a.hidden * a.head_dim * (2 * a.heads + 2 * a.kv_heads)
    return a.layers * (attention + 3 * a.hidden * a.ffn), a.hidden * a.vocab


def operations(a: Architecture, args: argparse.Namespace) -> float:
    """Floating-point operations of one step, forward and backward."""
    length = args.prompt + args.response - 1
    layers, head = layer_and_head(a)
    attention = 6 * a.layers * a.heads * a.head_dim * length**2
    return args.rows * (6.0 * layers * length + 6.0 * head * args.response + attention)


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
