"""How fast the rollout engines sample, against `transformers` generate as its users call it, in one run.

    python benchmarks/rollout.py                 # random weights in SmolLM2-135M's shape
    python benchmarks/rollout.py --model DIR     # a Hugging Face directory
    python benchmarks/rollout.py --engines torch transformers vllm --batch 32 96 --threads 1

Every case continues `batch / samples` random prompts `samples` times each, always to the full length. The contenders take turns, so a busy
machine slows them alike; the table gives medians, and their ratios are what to rely on. CPU seconds are those of all processes of an engine, so a
server's are counted. Then what it costs to hand over new weights.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, LlamaConfig, PretrainedConfig, PreTrainedModel

from azr_nemo.megatron.platform import choose_dtype, choose_platform
from azr_nemo.rollout import make_rollout
from azr_nemo.rollout.engine import RolloutEngine, SampleRequest
from azr_nemo.settings.schema import RolloutConfig

SMOLLM2_135M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True,
}
PEER = "transformers generate"


def main() -> None:
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    dtype = choose_dtype(args.dtype, choose_platform(args.device))
    model = load_model(args.model, dtype).to(device)
    engines = {f"rollout={name}": make_engine(name, model, dtype, device, args) for name in args.engines}
    try:
        measure(args, model, dtype, device, engines)
    finally:
        for engine in engines.values():
            engine.close()


def measure(
    args: argparse.Namespace, model: PreTrainedModel, dtype: torch.dtype, device: torch.device, engines: dict[str, RolloutEngine]
) -> None:
    source = args.model or "random weights, SmolLM2-135M's shape"
    threads = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(f"{source}; {dtype}; torch {torch.__version__}; {threads} ({platform.machine()})")
    print(
        f"prompts of {args.prompt_tokens} tokens, {args.samples} samples each, {args.new_tokens} new tokens, {args.repetitions} repetitions"
    )
    print(f"\n{'rows':>5}  {'contender':<22} {'tokens/s':>9} {'ratio':>6} {'tokens/CPU s':>13}")
    for rows in args.batch:
        requests = make_requests(model.config, rows, args)
        contenders: dict[str, Callable[[], None]] = {PEER: plain(model, requests)}
        contenders |= {name: sampled(engine, requests) for name, engine in engines.items()}
        seconds = interleaved(contenders, args.repetitions)
        for name, (wall, cpu) in seconds.items():
            tokens = rows * args.new_tokens
            print(f"{rows:>5}  {name:<22} {tokens / wall:>9.1f} {seconds[PEER][0] / wall:>5.2f}x {tokens / cpu:>13.1f}", flush=True)
    refits = {name: lambda engine=engine: engine.refit(model.named_parameters()) for name, engine in engines.items()}
    for name, (wall, cpu) in interleaved(refits, max(3, args.repetitions)).items():
        print(f"refit  {name:<22} {wall:>9.2f} s {cpu:>9.2f} CPU s", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a Hugging Face directory; without it, random weights in SmolLM2-135M's shape")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"], help="auto: what the hardware multiplies fast")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice (default)")
    parser.add_argument("--engines", nargs="+", default=["transformers", "torch"], choices=["torch", "transformers", "vllm"])
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32, 64], help="rows decoded together, one case each")
    parser.add_argument("--samples", type=int, default=4, help="samples of each prompt")
    parser.add_argument("--prompt-tokens", type=int, default=150)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=1)
    args = parser.parse_args()
    if any(rows % args.samples for rows in args.batch):
        parser.error(f"--batch must be multiples of --samples {args.samples}")
    return args


def load_model(directory: str | None, dtype: torch.dtype) -> PreTrainedModel:
    torch.manual_seed(1)
    if directory is None:
        return AutoModelForCausalLM.from_config(LlamaConfig(**SMOLLM2_135M), dtype=dtype).eval()
    return AutoModelForCausalLM.from_pretrained(directory, config=AutoConfig.from_pretrained(directory), dtype=dtype).eval()


def make_engine(name: str, model: PreTrainedModel, dtype: torch.dtype, device: torch.device, args: argparse.Namespace) -> RolloutEngine:
    """The engine with the model's weights and without end tokens, so that every sample has the full length."""
    lengths = {"max_prompt_tokens": args.prompt_tokens, "max_propose_tokens": args.new_tokens, "max_solve_tokens": args.new_tokens}
    config = RolloutConfig(name=name, max_batch_rows=max(args.batch), **lengths)
    engine = make_rollout(config, model.config, dtype, [], device, log=Path("vllm.log"), note=print)
    engine.refit(model.named_parameters())
    return engine


def make_requests(config: PretrainedConfig, rows: int, args: argparse.Namespace) -> list[SampleRequest]:
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(config.vocab_size, (rows // args.samples, args.prompt_tokens), generator=generator)
    return [SampleRequest(tuple(prompt), args.samples, args.new_tokens, 1.0, seed) for seed, prompt in enumerate(ids.tolist())]


def plain(model: PreTrainedModel, requests: list[SampleRequest]) -> Callable[[], None]:
    """`generate` with its own sampling and its own repetition of prompts."""
    ids = torch.tensor([request.prompt_ids for request in requests], device=model.device)
    tokens = requests[0].max_new_tokens
    settings = GenerationConfig(
        do_sample=True, top_k=0, num_return_sequences=requests[0].samples, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0
    )
    model.generation_config = GenerationConfig()

    def run() -> None:
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        assert output.shape == (len(requests) * requests[0].samples, ids.shape[1] + tokens)

    return run


def sampled(engine: RolloutEngine, requests: list[SampleRequest]) -> Callable[[], None]:
    def run() -> None:
        samples = engine.generate(requests)
        assert all(len(sample.token_ids) == requests[0].max_new_tokens for group in samples for sample in group)

    return run


def interleaved(contenders: dict[str, Callable[[], None]], repetitions: int) -> dict[str, tuple[float, float]]:
    """Median (seconds, CPU seconds) of each contender; they take turns."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, run in contenders.items():
            start, before = time.perf_counter(), cpu_seconds()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - start, cpu_seconds() - before))
    return {name: (statistics.median(w for w, _ in values), statistics.median(c for _, c in values)) for name, values in seconds.items()}


def cpu_seconds() -> float:
    """Of this process and all that it started and that still runs."""
    here = psutil.Process()
    return sum(times.user + times.system for times in (process.cpu_times() for process in (here, *here.children(recursive=True))))


if __name__ == "__main__":
    main()
