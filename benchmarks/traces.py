"""Does an untuned model compute better with a line of values for each statement before its answer? Asked in code, beside its answer in one breath.

    azr-nemo data prepare --source FOLDER --to data/eval                      # cruxeval.jsonl (docs/evaluation.md says where from)
    python benchmarks/traces.py --base embedded:qwen2_5_coder_0_5b --limit 100

The prompt ends in a comment; the model goes on with the values that variables take, or with a line of arithmetic for each line that runs, and then with
`assert f(x) == ...`, from which the answer is read. One worked example stands before each item. Prints the accuracy, how many answers came to an end
within --max-tokens, and of those that were well-formed in one breath too how many are right either way: what thinking were worth in its right form.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from azr_nemo.evaluation import results
from azr_nemo.evaluation.command import evaluate
from azr_nemo.evaluation.eval_settings import load_eval_settings
from azr_nemo.evaluation.form_and_substance import splits_of, table
from azr_nemo.observe.console import Console
from azr_nemo.tasks.fences import fence
from azr_nemo.tasks.marked import joined, template
from azr_nemo.tasks.styles import STYLES, Style
from azr_nemo.tasks.styles.code import Code, asserted
from azr_nemo.tasks.task import PromptOptions, PromptText, Refusal, Task

SUITE = "cruxeval_output"
PROGRAM = (
    "def f(words, size):\n    kept = []\n    for word in words:\n        if len(word) > size:\n            kept.append(word.upper())\n"
    "    return kept[::-1]"
)
CALL = "f(['pear', 'fig', 'melon'], 3)"
HEADS = {"values": "# values while {} runs", "lines": "# {}, line by line:"}
TRACES = {
    "values": ["words = ['pear', 'fig', 'melon']", "size = 3", "kept = []", "word = 'pear'", "kept = ['PEAR']", "word = 'fig'", "word = 'melon'",
               "kept = ['PEAR', 'MELON']"],
    "lines": ["words = ['pear', 'fig', 'melon'], size = 3, kept = []", "word = 'pear', len('pear') = 4 > 3, kept = ['PEAR']",
              "word = 'fig', len('fig') = 3, not > 3", "word = 'melon', len('melon') = 5 > 3, kept = ['PEAR', 'MELON']",
              "return ['PEAR', 'MELON'][::-1] = ['MELON', 'PEAR']"],
}  # fmt: skip


class Traced(Code):
    """Deduction alone. kind: of the trace, a name in HEADS. shown: after a worked example."""

    def __init__(self, kind: str, shown: bool = True):
        self.kind, self.shown = kind, shown

    def prompt(self, name: str, options: PromptOptions, **values: object) -> PromptText:
        task = values["task"]
        assert name == "solve_deduction"
        assert isinstance(task, Task)
        trace = "".join(f"# {line}\n" for line in TRACES[self.kind])
        shown = f"{PROGRAM}\n\n{HEADS[self.kind].format(CALL)}\n{trace}assert {CALL} == ['MELON', 'PEAR']\n\n\n"
        question = f"{task.program}\n\n{HEADS[self.kind].format(f'f({task.input})')}"
        return PromptText(joined(template(shown if self.shown else ""), question), stop=("\n\n", "\ndef", "\nf("))

    def read(self, name: str, text: str) -> str | Refusal:
        for line in text.split("\n"):
            if line.startswith("assert ") and "==" in line:
                return fence("output", asserted(line.partition("==")[2]))
        return Refusal("format", "no assert follows the trace")


def asked(checkpoint: str, style: str, longest: int, args: argparse.Namespace, styles: Mapping[str, Style] = MappingProxyType({})) -> Path:
    """The suite's answers in this style, of at most so many tokens. args: out, data, skip and limit; styles: what is one beside the package's."""
    STYLES.update(styles)
    out = args.out / f"{Path(checkpoint).name}-{style}"
    words = {"checkpoint": checkpoint, "suite": f"[{SUITE}]", "data": args.data, "out": out, "style": style, "skip": args.skip,
             "limit": args.limit, "max_tokens": longest}  # fmt: skip
    with Console() as console:
        evaluate(load_eval_settings([f"{key}={value}" for key, value in words.items()], {"all": [SUITE]}), console)
    return out


def add_options(parser: argparse.ArgumentParser, out: Path) -> None:
    """What is asked, and where it is kept."""
    parser.add_argument("--data", type=Path, default=Path("data/eval"))
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--out", type=Path, default=out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="embedded:NAME, a directory or a run")
    add_options(parser, Path("evals/traces"))
    args = parser.parse_args()
    kinds = {kind: Traced(kind) for kind in HEADS}
    folders = {style: asked(args.base, style, args.max_tokens if style in HEADS else 64, args, kinds) for style in ("code", *HEADS)}
    print("| | right | ended | tokens |\n|---|---|---|---|")
    for style, folder in folders.items():
        figures = results.read(folder)["suites"][SUITE]
        print(f"| {style} | {figures['pass@1']:.3f} | {1 - figures['truncated']:.3f} | {figures['tokens']:.0f} |")
    for kind in HEADS:
        print(f"\n{kind} minus one breath\n\n{table(splits_of(folders['code'], folders[kind], [SUITE]))}")


if __name__ == "__main__":
    main()
