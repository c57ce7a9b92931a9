"""What a training step takes on a machine that is at work: threads and how they wait, beside busy loops.

    python benchmarks/busy_machine.py                          # the tiny recipe's model
    python benchmarks/busy_machine.py --hidden 576 --layers 2  # layers as wide as SmolLM2-135M's
    sudo python benchmarks/busy_machine.py --first             # before all else that the machine does, which then disturbs little

A step: 96 answers of 64 tokens are sampled and learnt from.

A thread of OpenMP that has done its share waits for the others: it spins, so that it goes on at once, or sleeps. On a machine with fewer free
cores than threads the one that is waited for may not run, and spinning keeps its core from it. libgomp, torch's OpenMP, is told how long to
spin by GOMP_SPINCOUNT (rounds) and OMP_WAIT_POLICY, when it is loaded. A way to wait is one process; it takes its turns with each number of busy
loops, and the shortest of them counts.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BEFORE_ALL = -19
LOOPS = (0, 1, 2)
# In the order of a table: a name, threads (0: one a core), what libgomp is told.
WAYS: list[tuple[str, int, dict[str, str]]] = [
    ("1 thread", 1, {}),
    ("a thread a core, libgomp's own spinning", 0, {}),
    ("spinning of 100,000 rounds", 0, {"GOMP_SPINCOUNT": "100000"}),
    ("spinning of 10,000 rounds", 0, {"GOMP_SPINCOUNT": "10000"}),
    ("spinning of 3,000 rounds", 0, {"GOMP_SPINCOUNT": "3000"}),
    ("spinning of 1,000 rounds", 0, {"GOMP_SPINCOUNT": "1000"}),
    ("passive", 0, {"OMP_WAIT_POLICY": "passive"}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--first", action="store_true", help="before all others while it measures (needs root and sched_autogroup)")
    parser.add_argument("--hidden", type=int, default=0, help="the model's width, in the place of the tiny recipe's")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--ways", type=int, nargs="*", default=range(len(WAYS)), help="only these rows of the table, from 0")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(WAYS[args.ways[0]][1], args)
        return
    print(f"{os.cpu_count()} cores; seconds of a step beside {', '.join(map(str, LOOPS))} busy loops, shortest of {args.repetitions}")
    for number in args.ways:
        name, _, told = WAYS[number]
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))} | told
        command = [sys.executable, "-W", "ignore", *sys.argv, "--child", "--ways", str(number)]
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
        print(f"{name:<42} {done.stdout.strip()}", flush=True)


def measure(threads: int, args: argparse.Namespace) -> None:
    """Prints the shortest step beside each number of busy loops."""
    from azr_nemo.megatron.controller import build_engine
    from azr_nemo.models import resolve_model
    from azr_nemo.planning.run_settings import load_settings
    from azr_nemo.selfplay.exchange import Example, Prompt, PromptBatch
    from azr_nemo.tasks.task import PromptText, Role, TaskType

    with tempfile.TemporaryDirectory() as folder:
        os.environ["AZR_NEMO_CACHE"] = folder
        config = load_settings(["recipe=tiny-1n0g-megatron", f"engine.threads={threads or os.cpu_count()}", f"run_dir={folder}/run"])
        model = resolve_model(config.model)
        engine = build_engine(config, widened(model, args.hidden, args.layers) if args.hidden else model)
        assert engine is not None
        prompts = [Prompt(PromptText("x = 1\n" * 12), Role.SOLVE, TaskType.DEDUCTION, 8, 64, 1.0)] * 12

        def step() -> None:
            answers = engine.generate(PromptBatch(prompts, "solve"), seed=1)
            engine.supervise([Example(answer.prompt_ids, answer.response_ids) for group in answers for answer in group], lr=0.0)
            engine.refit()

        step()
        shortest = dict.fromkeys(LOOPS, float("inf"))
        for _ in range(args.repetitions):
            for loops in LOOPS:
                with busy(loops, args.first):
                    started = time.perf_counter()
                    step()
                    shortest[loops] = min(shortest[loops], time.perf_counter() - started)
        engine.close()
    print(*(f"{seconds:7.2f}" for seconds in shortest.values()))


def widened(model: Path, hidden: int, layers: int) -> Path:
    """The same vocabulary in a model of random weights of this size."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    shape = AutoConfig.from_pretrained(model)
    shape.update({"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 8 * hidden // 3 // 16 * 16, "head_dim": 64})
    shape.update({"num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64})
    wide = model.with_name("wide")
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(wide)
    for file in model.glob("*token*"):
        (wide / file.name).write_bytes(file.read_bytes())
    return wide


@contextlib.contextmanager
def busy(loops: int, first: bool) -> Iterator[None]:
    """So many processes at work, each in a session of its own as others' are."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(loops)]
    try:
        for pid in ["self", *(process.pid for process in started)] if first else ():
            Path(f"/proc/{pid}/autogroup").write_text(str(BEFORE_ALL), encoding="utf-8")
        yield
    finally:
        if first:
            Path("/proc/self/autogroup").write_text("0", encoding="utf-8")
        for process in started:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
