"""Checkpoints before the judges: public benchmarks of reasoning about programs, beside the prompts that a sceptic asks for.

    azr-nemo data prepare --source FOLDER --to data/eval              # cruxeval.jsonl and codeio.jsonl.gz (docs/evaluation.md says where from)
    python benchmarks/judges.py --base embedded:qwen2_5_coder_0_5b --limit 200 runs/qwen runs/qwen-shuffled
    python benchmarks/judges.py --base embedded:qwen2_5_coder_0_5b --skip 200 --samples 8 runs/qwen          # the rows that are reported

Asked greedily in the style that was trained: the untuned model, the same after 2 and 4 worked examples (what knowing the form is worth), and each
run or checkpoint that is named. With --samples the same again at temperature 1, for pass@1 and pass@8. Prints accuracies with intervals, then of each
against the untuned model, and against it with its best examples, what the difference is made of: form, and substance. Killed, it goes on when started
again.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from azr_nemo.evaluation import results
from azr_nemo.evaluation.form_and_substance import splits_of, table
from azr_nemo.evaluation.sampler import find_checkpoint

SUITES = ("cruxeval_output", "cruxeval_input", "codeio_output", "codeio_input")
SHOTS = (0, 2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="runs or checkpoints")
    parser.add_argument("--base", required=True, help="the untuned model: embedded:NAME or a directory")
    parser.add_argument("--style", default="code")
    parser.add_argument("--suites", nargs="+", default=list(SUITES))
    parser.add_argument("--data", type=Path, default=Path("data/eval"))
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--shots", type=int, nargs="*", default=list(SHOTS), help="of the untuned model; 0 is always asked")
    parser.add_argument("--samples", type=int, default=0, help="sampled answers to each item beside the greedy one")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("evals/judges"))
    args = parser.parse_args()
    judge(args)


def judge(args: argparse.Namespace) -> None:
    """Asks, and prints the tables."""
    untuned = {f"untuned, {shots} examples" if shots else "untuned": (args.base, shots) for shots in sorted({0, *args.shots})}
    asked = {**untuned, **{str(path): (str(path), 0) for path in args.checkpoints}}
    ways = {"greedy": ["samples=1", "temperature=0.0", "pass_k=[1]"]}
    if args.samples:
        ways["sampled"] = [f"samples={args.samples}", "temperature=1.0", f"pass_k=[1,{args.samples}]"]
    for way, words in ways.items():
        folders = {name: evaluated(args, *what, way, words) for name, what in asked.items()}
        print(f"\n{way}, {args.style} style, items {args.skip} to {args.skip + args.limit or 'the last'}\n")
        print(accuracies({name: results.read(folder)["suites"] for name, folder in folders.items()}, args.suites))
        for name in asked:
            for other in dict.fromkeys(("untuned", best(folders, untuned, args.suites))):
                if name != other and name not in untuned:
                    print(f"{name} minus {other}\n\n{table(splits_of(folders[other], folders[name], args.suites))}")


def evaluated(args: argparse.Namespace, checkpoint: str, shots: int, way: str, words: Sequence[str]) -> Path:
    """The results of one evaluation, which is made, or gone on with, where it is not finished."""
    path = find_checkpoint(checkpoint)
    named = f"{path.parent.parent.name}-{path.name}" if path.parent.name == "checkpoints" else path.name
    out = args.out / f"{named}-{shots}shots-{way}-{args.skip}-{args.limit}"
    if not (out / results.RESULTS).exists():
        settings = {
            "checkpoint": checkpoint, "suite": f"[{','.join(args.suites)}]", "data": args.data, "out": out, "style": args.style, "shots": shots,
            "skip": args.skip, "limit": args.limit, "max_tokens": args.max_tokens,
        }  # fmt: skip
        command = [sys.executable, "-m", "azr_nemo", "eval", *(f"{name}={value}" for name, value in settings.items()), *words]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            sys.exit(f"the evaluation of {checkpoint} failed, see above")
    return out


def accuracies(found: dict[str, dict[str, Any]], suites: Sequence[str]) -> str:
    """Markdown: pass@1 with its interval, and pass@k, a line a model."""
    lines = [f"| model | {' | '.join(suites)} |", "|---" * (1 + len(suites)) + "|"]
    for name, figures in found.items():
        lines.append(f"| {name} | {' | '.join(cell(figures[suite]) for suite in suites)} |")
    return "\n".join(lines) + "\n"


def cell(figures: dict[str, Any]) -> str:
    said = f"{figures['pass@1']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"
    more = {key: figures[key] for key in figures if key.startswith("pass@") and key != "pass@1"} | figures["parts"]
    return said + "".join(f", {key} {value:.3f}" for key, value in more.items())


def best(folders: dict[str, Path], untuned: dict[str, Any], suites: Sequence[str]) -> str:
    """The untuned prompt with the highest mean accuracy: what a gain has to be more than."""
    figures = {name: results.read(folders[name])["suites"] for name in untuned}
    return max(untuned, key=lambda name: sum(figures[name][suite]["pass@1"] for suite in suites))


if __name__ == "__main__":
    main()
