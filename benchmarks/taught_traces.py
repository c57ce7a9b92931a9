"""Does a model that was taught to write down what variables hold compute better? Taught from its own programs and the executor alone, without data.

    azr-nemo data prepare --source FOLDER --to data/eval                      # cruxeval.jsonl (docs/evaluation.md says where from)
    python benchmarks/taught_traces.py --runs runs/zero-data/* --limit 200 engine.threads=1

The programs in the buffers of these runs are run in the jail, by a script around them that notes each change of a variable of `f`. One model is
taught these notes with the answer after them, another the answers alone: one pass over the same pairs, in the same order. Both and the untuned one are
asked CRUXEval's outputs. A trace of more than --longest tokens is left out of the lesson, not its answer. Prints accuracies, and those among the items
whose trace came to an end. Killed, it goes on with what is finished.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from traces import SUITE, Traced, add_options, asked

from azr_nemo.evaluation import results
from azr_nemo.megatron.controller import build_engine
from azr_nemo.models import resolve_model
from azr_nemo.observe.jsonl import read_rows
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.sandbox.configured import limits, make_executor
from azr_nemo.sandbox.executor import Script
from azr_nemo.selfplay.buffer import TaskBuffer
from azr_nemo.selfplay.exchange import Example
from azr_nemo.settings.schema import RunConfig
from azr_nemo.tasks.parsing import same_literal
from azr_nemo.tasks.styles.code import Code
from azr_nemo.tasks.task import PromptOptions, Task, TaskType
from azr_nemo.trainer.assembly import with_dtype

LESSONS = {"answers": "code", "traces": "taught"}  # and the style in which who was taught it is asked
SIZE = 16  # of a batch
RISE = 5  # batches in which the learning rate rises, before it falls linearly to a tenth
# Around a program: every change of what a variable of its first call of `f` holds, a line each; longer than any answer may be it is given up.
RECORDER = """
import json, sys
names, call = {{}}, {call!r}
exec(compile({program!r}, "program", "exec"), names)
lines, held, first = [], {{}}, []
def inside(frame, event, argument):
    for name, value in list(frame.f_locals.items()):
        if not name.startswith(".") and not callable(value) and held.get(name) != (said := repr(value)):
            held[name] = said
            lines.append(name + " = " + said)
    if len(lines) > 60 or sum(map(len, lines)) > 2000:
        sys.settrace(None)
        lines.append("too long")
        return None
    return inside
def entered(frame, event, argument):
    if frame.f_code.co_name == "f" and frame.f_code.co_filename == "program" and not first:
        first.append(frame)
        return inside
sys.settrace(entered)
value = eval(call, names)
sys.settrace(None)
print()
print(json.dumps([lines, repr(value)]))
"""


@dataclass(frozen=True)
class Seen:
    """A program's run: the changes of its variables, none where that is not known or no text that can be learnt."""

    program: str
    input: str
    output: str
    lines: tuple[str, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="whose buffers have the programs")
    parser.add_argument("--recipe", default="qwen2_5_coder_0_5b-1n0g-megatron")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the pairs")
    parser.add_argument("--inputs", type=int, default=3, help="of each program at most")
    parser.add_argument("--longest", type=int, default=170, help="tokens of a trace with its answer")
    parser.add_argument("--pairs", type=int, default=0, help="so many alone; 0: all")
    parser.add_argument("--lesson", choices=LESSONS, help="only teach this, and keep the model")
    add_options(parser, Path("evals/taught-traces"))
    args, settings = parser.parse_known_args()
    words = [f"recipe={args.recipe}", f"run_dir={args.out / 'run'}", *settings]
    config = with_dtype(load_settings(words), None)
    args.out.mkdir(parents=True, exist_ok=True)
    if not (noted := args.out / "seen.json").exists():
        whole = noted.with_suffix(".part")
        whole.write_text(
            json.dumps([vars(run) for run in seen(config, drawn(args.runs, args.inputs, random.Random(args.seed)))]), encoding="utf-8"
        )
        whole.rename(noted)
    pairs = [Seen(**run) for run in json.loads(noted.read_text(encoding="utf-8"))][: args.pairs or None]
    if args.lesson:
        return teach(config, args.lesson, pairs, args.longest, args.out / args.lesson)
    for lesson in LESSONS:
        if not (args.out / lesson).exists():  # one engine a process
            subprocess.run([sys.executable, *sys.argv, "--lesson", lesson], check=True)
    folders = {"untuned": asked(str(resolve_model(config.model)), "code", 64, args)}
    for lesson, style in LESSONS.items():
        longest = args.max_tokens if lesson == "traces" else 64
        folders[lesson] = asked(str(args.out / lesson), style, longest, args, {"taught": Traced("values", shown=False)})
    return told(folders)


def drawn(runs: list[Path], inputs: int, rng: random.Random) -> list[Seen]:
    """Every program of the buffers with some of its inputs, mixed."""
    of: dict[str, dict[str, str]] = {}
    for run in runs:
        with TaskBuffer(run / "buffer.sqlite", sys.maxsize) as buffer:
            for stored in buffer.tasks(*TaskType):
                of.setdefault(stored.task.program, {}).update(zip(stored.task.inputs, stored.task.outputs, strict=True))
    pairs = [Seen(program, *pair) for program, known in of.items() for pair in rng.sample(sorted(known.items()), min(inputs, len(known)))]
    rng.shuffle(pairs)
    return pairs


def seen(config: RunConfig, pairs: list[Seen]) -> list[Seen]:
    """The pairs with what was noted of them in the jail. Notes that disagree with the task's output, or name an address, are none."""
    found = []
    with make_executor(config.executor) as executor:
        for pair in pairs:
            source = RECORDER.format(program=pair.program, call=f"f({pair.input})")
            said = executor.submit_script(Script(source, limits=limits(config.executor))).result().stdout
            try:
                lines, value = json.loads(said.rsplit("\n", 2)[-2])
                usable = lines[-1] != "too long" and same_literal(value, pair.output) and not any(" at 0x" in line for line in lines)
            except (ValueError, IndexError, TypeError):  # it was ended, or says something else
                usable = False
            found.append(Seen(pair.program, pair.input, pair.output, tuple(lines) if usable else ()))
    return found


def teach(config: RunConfig, lesson: str, pairs: list[Seen], longest: int, out: Path) -> None:
    """One pass of cross-entropy over the pairs; the model is kept in `out`."""
    engine = build_engine(config, resolve_model(config.model))
    assert engine is not None
    options = PromptOptions(style="code")

    def example(run: Seen) -> Example:
        task = Task(TaskType.DEDUCTION, run.program, (run.input,), (run.output,))
        style = Traced("values", shown=False) if lesson == "traces" else Code()
        end = f"\nassert f({run.input}) == {run.output}\n\n" if lesson == "traces" else f" {run.output}\n"
        trace = "".join(f"\n# {line}" for line in run.lines) if lesson == "traces" else ""
        ids = engine.encode_response(trace + end)[:-1]  # its stop string ends it
        if len(ids) > longest:
            ids = engine.encode_response(end)[:-1]
        return Example(tuple(engine.encode(style.prompt("solve_deduction", options, task=task).full)), tuple(ids))

    examples = [e for e in map(example, pairs) if len(e.prompt_ids) + len(e.response_ids) <= config.engine.micro_batch_tokens]
    batches = [examples[start : start + SIZE] for start in range(0, len(examples), SIZE)]
    for number, batch in enumerate(batches):
        part = min(1, (number + 1) / RISE) * max(0.1, 1 - number / len(batches))
        loss = engine.supervise(batch, config.optim.lr * part)["loss"]
        print(f"{lesson}: {number + 1}/{len(batches)} batches, loss {loss:.3f}", file=sys.stderr, flush=True)
    unfinished = out.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    engine.save(unfinished)
    unfinished.rename(out)
    engine.close()


def told(folders: dict[str, Path]) -> None:
    rows = {name: {row["id"]: row for row in read_rows(folder / f"{SUITE}.jsonl", "id", str)} for name, folder in folders.items()}
    ended = [id for id, row in rows["traces"].items() if row["finished"]]
    print("| | right | tokens | right where the trace ended |\n|---|---|---|---|")
    for name, folder in folders.items():
        figures = results.read(folder)["suites"][SUITE]
        there = sum(bool(rows[name][id]["right"]) for id in ended)
        print(f"| {name} | {figures['pass@1']:.3f} | {figures['tokens']:.0f} | {there} of {len(ended)} |")


if __name__ == "__main__":
    main()
