"""A model teaches itself, and judges say what: every arm of every seed, then public benchmarks, with intervals over all seeds. One command, resumable.

    azr-nemo data prepare --source FOLDER --to data/eval                        # cruxeval.jsonl (docs/evaluation.md says where from)
    python benchmarks/zero_data.py --steps 12 --skip 200                         # three seeds of four arms, on the rows kept for the report
    python benchmarks/zero_data.py --steps 8 --seeds 1 --limit 200 selfplay.batch_size=32 selfplay.proposals=8        # what one core can do

The arms are those of learning_arm.py; all arms of a seed begin with the same tasks, which the untuned model proposed once. Each is judged greedily
beside the untuned model, as it is and after worked examples (judges.py). Prints, of each arm and all its seeds together: accuracy, the difference to the
untuned model with its 95% interval (paired by item, bootstrap over items), what of it is form and what substance, and each seed by itself; the same once
more with inputs that repeat the output as wrong; then the first arm against every control and against the best untuned prompt, and what became of the
proposals.
Whatever is finished stays finished: started again after a kill it goes on where it was. Checkpoints of this recipe take 5 GB each, and each run keeps one.
"""

import argparse
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import judges
import numpy as np
from learning import read_metrics
from learning_arm import ARMS
from learning_statistics import difference, figure, narrowing
from numpy.typing import NDArray

from azr_nemo.evaluation.form_and_substance import split
from azr_nemo.evaluation.suite import WITHOUT_ECHO
from azr_nemo.observe.jsonl import read_rows

HERE = Path(__file__).parent
Rows = list[dict[str, Any]]  # of one suite, as `azr-nemo eval` leaves them
GREEDY = ["samples=1", "temperature=0.0", "pass_k=[1]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of every run, as for `azr-nemo train`")
    parser.add_argument("--recipe", default="qwen2_5_coder_0_5b-1n0g-megatron")
    parser.add_argument("--base", default="embedded:qwen2_5_coder_0_5b", help="the recipe's model, untuned")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["selfplay", "solver_only", "seeds_only", "shuffled"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--suites", nargs="+", default=["cruxeval_output", "cruxeval_input"])
    parser.add_argument("--data", type=Path, default=Path("data/eval"))
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--shots", type=int, nargs="*", default=[0, 2, 4])
    parser.add_argument("--style", default="code")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("runs/zero-data"))
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in range(1, args.seeds + 1):
        tasks = seeded(args, seed)
        for arm in args.arms:
            trained(args, arm, seed, tasks)
    judging = Namespace(**{**vars(args), "out": args.out / "judged"})
    untuned = {shots: judges.evaluated(judging, args.base, shots, "greedy", GREEDY) for shots in sorted({0, *args.shots})}
    arms = {
        arm: [judges.evaluated(judging, str(args.out / f"{arm}-{seed}"), 0, "greedy", GREEDY) for seed in range(1, args.seeds + 1)]
        for arm in args.arms
    }
    curves = {arm: [read_metrics(args.out / f"{arm}-{seed}") for seed in range(1, args.seeds + 1)] for arm in args.arms}
    text = f"`python benchmarks/zero_data.py {' '.join(sys.argv[1:])}`\n\n" + report(untuned, arms, args.suites) + "\n" + narrowing(curves)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    figure(curves, args.out / "figure.png")
    print(text)


def seeded(args: Namespace, seed: int) -> Path:
    """The tasks that the untuned model proposed for this seed's runs."""
    tasks = args.out / f"seeds-{seed}.jsonl"
    if not tasks.exists():
        words = [f"recipe={args.recipe}", f"seed={seed}", *args.overrides, f"run_dir={args.out / f'seeding-{seed}'}", "eval.items=0"]
        part = tasks.with_suffix(".part")
        ran([sys.executable, "-m", "azr_nemo", "seed", *words, "--out", str(part)], args.out / f"seeding-{seed}.log")
        part.replace(tasks)
    return tasks


def trained(args: Namespace, arm: str, seed: int, tasks: Path) -> None:
    """The run of one arm, to its last step."""
    run_dir = args.out / f"{arm}-{seed}"
    outcome = run_dir / "outcome"
    if outcome.exists() and outcome.read_text(encoding="utf-8").strip() == f"done {args.steps}":
        return
    own = [f"recipe={args.recipe}", f"seed={seed}", f"run_dir={run_dir}", f"data.seed_files=[{tasks.absolute()}]", "data.seed_rounds=1"]
    words = [*own, f"selfplay.steps={args.steps}", "checkpoint.keep=1", *args.overrides]
    ran([sys.executable, str(HERE / "learning_arm.py"), "--arm", arm, *words], run_dir.with_suffix(".log"))


def ran(command: list[str], log: Path) -> None:
    """One process, whose output goes to a file; ends this one where it fails."""
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    with log.open("ab") as file:
        code = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    if code:
        sys.exit(f"{log.stem} ended with exit code {code}, see {log}")


def report(untuned: Mapping[int, Path], arms: Mapping[str, Sequence[Path]], suites: Sequence[str]) -> str:
    """Markdown: a table a suite, and the mean of all of them; once more where answers say whether they repeat the output, with those as wrong.
    untuned: results by worked examples; arms: results of each seed."""
    tables = []
    for title, of in [*((suite, [suite]) for suite in suites), ("all", suites)]:
        for name, paid in ((title, True), (f"{title} without echoes", False)):
            if paid or any(WITHOUT_ECHO in row.get("parts", {}) for row in joined(untuned[0], of)):
                tables.append(table(name, {n: joined(folder, of, paid) for n, folder in untuned.items()}, seeds_of(arms, of, paid)))
    return "\n".join(tables)


def seeds_of(arms: Mapping[str, Sequence[Path]], suites: Sequence[str], paid: bool) -> dict[str, list[Rows]]:
    """Each arm's graded answers, seed by seed."""
    return {arm: [joined(folder, suites, paid, seed) for seed, folder in enumerate(folders)] for arm, folders in arms.items()}


def table(title: str, untuned: Mapping[int, Rows], arms: Mapping[str, Sequence[Rows]]) -> str:
    """Markdown: what each arm has right, what it gains on the untuned model and what that is made of; then the first arm beside every other."""
    before, pooled = untuned[0], {arm: [row for seed in seeds for row in seed] for arm, seeds in arms.items()}
    lines = [
        f"\n**{title}**\n",
        "| | accuracy | minus untuned, 95% | form | substance, 95% | minus untuned, seed by seed |",
        "|---|---|---|---|---|---|",
    ]
    for shots, rows in untuned.items():
        minus = f"{difference(scores(before), scores(rows))}" if shots else ""
        lines.append(f"| {f'untuned, {shots} examples' if shots else 'untuned'} | {accuracy(rows):.3f} | {minus} | | | |")
    for arm, seeds in arms.items():
        parted = split(repeated(before, len(seeds)), pooled[arm])
        each = "; ".join(f"{accuracy(seed) - accuracy(before):+.3f}" for seed in seeds)
        lines.append(
            f"| {arm} | {accuracy(pooled[arm]):.3f} | {difference(scores(before), scores(pooled[arm]))} | {parted.form:+.3f} | "
            f"{parted.substance:+.3f} [{parted.low:+.3f}, {parted.high:+.3f}] | {each} |"
        )
    first, *controls = pooled
    best = max(untuned, key=lambda shots: accuracy(untuned[shots]))
    others = {"the best untuned prompt": untuned[best], **{arm: pooled[arm] for arm in controls}}
    beside = "; ".join(f"{name} {difference(scores(rows), scores(pooled[first]))}" for name, rows in others.items())
    return "\n".join([*lines, "", f"{first} minus: {beside}"])


def joined(folder: Path, suites: Iterable[str], paid: bool = True, seed: int = 0) -> Rows:
    """One seed's graded answers to several suites. paid: an input that repeats the output is right where it gives it."""
    return [
        {
            **row,
            "id": f"{suite}/{row['id']}",
            "sample": f"{row['sample']}/{seed}",
            "right": row["right"] if paid else row.get("parts", {}).get(WITHOUT_ECHO, row["right"]),
        }
        for suite in suites
        for row in read_rows(folder / f"{suite}.jsonl", "id", str)
    ]


def repeated(rows: Rows, seeds: int) -> Rows:
    """One model's answers beside those of so many seeds."""
    return [{**row, "sample": row["sample"].replace("/0", f"/{seed}")} for seed in range(seeds) for row in rows]


def scores(rows: Rows) -> NDArray[np.float64]:
    """Of each item, in one order, the share that is right."""
    by_item: dict[str, list[bool]] = {}
    for row in rows:
        by_item.setdefault(row["id"], []).append(row["right"])
    return np.array([np.mean(by_item[item]) for item in sorted(by_item)])


def accuracy(rows: Rows) -> float:
    return float(scores(rows).mean())


if __name__ == "__main__":
    main()
