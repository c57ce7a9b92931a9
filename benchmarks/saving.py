"""What a step loses to its checkpoint, when it is written at once and when it is written while the next steps run.

    python benchmarks/saving.py                      # a model of 9 million parameters: a checkpoint of about 110 MB

The three ways take turns: steps without a save, with a save that waits for the disk, with one that is written aside. What a step waits for is
the time until the save returns; the steps after it also share processors and memory with the writing thread, which the totals show on a quiet
machine. The disk matters: name one with --folder. The processor's seconds of a save, and those of its hashes, hardly depend on what else runs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from azr_nemo.file_hashes import Written
from azr_nemo.megatron.controller import MegatronEngine, build_engine
from azr_nemo.models import tiny
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.runs.checkpoints import Checkpoints
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Example
from azr_nemo.settings.compose import as_yaml
from azr_nemo.trainer.saver import Saver

WAYS = ("no save", "synchronous", "asynchronous")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps after each save")
    parser.add_argument("--hidden", type=int, default=384, help="the model's width")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--folder", help="where the checkpoints are written, instead of the temporary directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        engine = make_engine(Path(folder), args.hidden, args.layers)
        rows = [Example(tuple(range(10, 74)), tuple(range(20, 84)))] * 2
        seconds: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
        hashing = count_hashing()
        with TaskBuffer(Path(folder) / "buffer.sqlite", 100) as buffer:
            for number in range(args.repetitions + 1):
                for way in WAYS:
                    saver = Saver(Checkpoints(Path(folder) / way, 1), engine, as_yaml(engine.config), way == "asynchronous", 600.0)
                    del hashing[:]
                    timed = turn(engine, saver if way != "no save" else None, rows, args.steps, number, buffer)
                    if number:  # the first one warms up
                        seconds[way].append((*timed, sum(hashing)))
            size = sum(path.stat().st_size for path in (Path(folder) / "synchronous").rglob("*") if path.is_file())
        base = statistics.median(total for total, *_ in seconds["no save"])
        print(
            f"checkpoint {size / 1e6:.0f} MB, {args.steps} steps a save, {torch.get_num_threads()} threads; medians of {args.repetitions}, seconds"
        )
        waited = {}
        for way in WAYS[1:]:
            total, waited[way], cpu, hashed = (statistics.median(column) for column in zip(*seconds[way], strict=True))
            # What the steps take of the processor is in an asynchronous save's, which goes on beside them.
            own = f"of the processor {cpu:6.3f}, " if way == "synchronous" else ""
            print(f"{way:<14} save returns after {waited[way]:6.3f}   save and steps {total:6.3f}   {own}hashes {hashed:6.3f}")
            if own:
                print(f"{'':<14} hashes are {hashed / cpu:.0%} of the save's processor seconds, {size / hashed / 1e9:.2f} GB/s")
        print(f"{'no save':<14} {'':<26} steps          {base:6.3f}")
        print(f"ratio of the seconds that a step waits {waited['synchronous'] / waited['asynchronous']:.1f}x")
        engine.close()


def make_engine(folder: Path, hidden: int, layers: int) -> MegatronEngine:
    """An engine that has Adam's moments to save."""
    words = tiny.tokenizer()
    shape = tiny.config(words)
    shape.update(
        {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": 8 * hidden // 3 // 16 * 16, "head_dim": hidden // 4}
    )
    torch.manual_seed(0)
    LlamaForCausalLM(shape).save_pretrained(folder / "model")
    words.save_pretrained(folder / "model")
    config = load_settings(["recipe=tiny-1n0g-megatron", f"run_dir={folder}/run", f"model.path={folder}/model", "engine.threads=1"])
    engine = build_engine(config, folder / "model")
    assert engine is not None
    engine.supervise([Example((10, 11), (12, 13))])
    return engine


def count_hashing() -> list[float]:
    """A list that the processor's seconds of each hash that is made from now on are added to."""
    of, found = Written.of, []

    def counted(content: bytes | memoryview | Iterable[bytes | memoryview]) -> Written:
        started = time.thread_time()
        written = of(content)
        found.append(time.thread_time() - started)
        return written

    Written.of = counted  # type: ignore[method-assign, assignment]
    return found


def turn(
    engine: MegatronEngine, saver: Saver | None, rows: list[Example], steps: int, number: int, buffer: TaskBuffer
) -> tuple[float, float, float]:
    """Seconds of the save and the steps after it, in all and until save returned, and the processor's until it returned; the write may end after
    them."""
    started, working = time.perf_counter(), time.process_time()
    if saver:
        saver.save(number, buffer)
    returned, worked = time.perf_counter(), time.process_time()
    for _ in range(steps):
        engine.supervise(rows)
    ended = time.perf_counter()
    if saver:
        saver.wait()
    return ended - started, returned - started, worked - working


if __name__ == "__main__":
    main()
