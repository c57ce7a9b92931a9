"""Does self-play teach the model anything? A recipe against its warm start and arms that lack something, on programs that it never saw.

    python benchmarks/learning.py --recipe tiny-1n0g-megatron --seeds 3 --minutes 10
    python benchmarks/learning.py --recipe smollm2_135m-1n0g-megatron --seeds 3 --steps 24 --programs 2000 --samples 1

Arms, from the same warm start, with equal steps and learning rate:
  selfplay     the recipe
  solver_only  proposals are made, checked and stored, and not trained on
  seeds_only   nothing is proposed: the solver learns from the seeds
  shuffled     advantages change places within their (role, task type) group
  zero         all advantages are 0
Where they are named, --arms selfplay max_rl wishes: the recipe with one thing changed, IDEAS in learning_arm.py (pipelined is for recipes whose solver
draws from earlier steps).
The first seed's selfplay arm runs for --minutes of self-play; every other run does as many steps. Held out: programs whose normalised source
falls in one of eight classes of its hash, which the warm start, the seeds and the proposals leave out. All arms answer the same tasks, one of
each type a program; asked for more programs than before, they answer the rest. Intervals: 95%, bootstrap over programs. Writes answers, metrics,
table.md and figure.png into --out.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from learning_arm import ARMS, LACKING, answered
from learning_statistics import echoes, figure, narrowing, read_answers, splits, table

from azr_nemo.json_lines import objects

HERE = Path(__file__).parent
STOPPED = 75  # what a run that was asked to stop ends with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of every arm, as for `azr-nemo train`")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0, help="of self-play in the first arm; the others do as many steps")
    parser.add_argument("--steps", type=int, default=0, help="instead of --minutes")
    parser.add_argument("--programs", type=int, default=1000, help="held-out programs, each a task of every type")
    parser.add_argument(
        "--samples", type=int, default=4, help="sampled answers to each task, beside the greedy one; 0: none, and nan in their columns"
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(LACKING))
    parser.add_argument("--together", type=int, default=2, help="runs side by side, which share the cores")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    args = parser.parse_intermixed_args()
    if "selfplay" not in args.arms:
        parser.error("--arms must name selfplay: it is what the others are compared with")
    args.out.mkdir(parents=True, exist_ok=True)
    settings = [f"recipe={args.recipe}", f"engine.threads={threads(args.together)}", *args.overrides]
    first = args.out / "selfplay-1"
    steps = args.steps or timed(first, settings, args.minutes)
    runs = {f"{arm}-{seed}": (arm, seed) for seed in range(1, args.seeds + 1) for arm in args.arms}
    with ThreadPoolExecutor(args.together) as pool:
        for _ in pool.map(lambda name: finished(args.out / name, *runs[name], settings, steps, args), runs):
            pass
    warm = args.out / "warm.jsonl"
    if answered(warm) < args.programs:
        answer(warm, args.out / "nothing", settings, args)
    arms = {arm: [read_answers(args.out / f"{arm}-{seed}.jsonl") for seed in range(1, args.seeds + 1)] for arm in args.arms}
    text = table(read_answers(warm), arms, steps)
    files = {arm: [args.out / f"{arm}-{seed}.jsonl" for seed in range(1, args.seeds + 1)] for arm in args.arms}
    curves = {arm: [read_metrics(args.out / f"{arm}-{seed}") for seed in range(1, args.seeds + 1)] for arm in args.arms}
    text += "\n\n" + splits(warm, files) + "\n" + echoes(warm, files) + narrowing(curves)
    command = f"python benchmarks/learning.py {' '.join(sys.argv[1:])}"
    (args.out / "table.md").write_text(f"`{command}`\n\n{text}\n", encoding="utf-8")
    figure(curves, args.out / "figure.png")
    print(text)


def threads(together: int) -> int:
    """Of each run. Told to torch alone: the executor's jails count threads too."""
    return max(1, (os.cpu_count() or 1) // together)


def timed(run_dir: Path, settings: list[str], minutes: float) -> int:
    """Runs the first arm for `minutes` of self-play, if it has not been; the steps that it did."""
    latest = run_dir / "checkpoints" / "latest"
    if not (run_dir / "timed").exists():
        shutil.rmtree(run_dir, ignore_errors=True)
        child(["--minutes", str(minutes), f"run_dir={run_dir}", "seed=1", "selfplay.steps=1000000", *settings], run_dir, ok=(0, STOPPED))
        (run_dir / "timed").touch()
    return int(latest.read_text(encoding="utf-8").strip().removeprefix("step_"))


def finished(run_dir: Path, arm: str, seed: int, settings: list[str], steps: int, args: argparse.Namespace) -> None:
    """Runs an arm to its end, or takes up one that was broken off, and has it answer."""
    out = run_dir.with_suffix(".jsonl")
    if answered(out) >= args.programs:
        return
    if not (run_dir / "timed").exists():
        child(["--arm", arm, f"run_dir={run_dir}", f"seed={seed}", f"selfplay.steps={steps}", *settings], run_dir)
    answer(out, run_dir, settings, args)


def answer(out: Path, run_dir: Path, settings: list[str], args: argparse.Namespace) -> None:
    """The answers of a run's last checkpoint; of the warm start where there is none."""
    options = ["--answers", str(out), "--programs", str(args.programs), "--samples", str(args.samples)]
    child([*options, f"run_dir={run_dir}", *settings], out.with_suffix(".answers"))


def child(arguments: list[str], log: Path, ok: Iterable[int] = (0,)) -> None:
    """One process of learning_arm.py; its output goes to a file beside the run."""
    log = log.with_suffix(".log")
    print(f"{log.stem}: {' '.join(arguments)}", file=sys.stderr, flush=True)
    with log.open("ab") as file:
        command = [sys.executable, HERE / "learning_arm.py", *arguments]
        code = subprocess.run(command, stdout=file, stderr=file, check=False, env=os.environ).returncode
    if code not in ok:
        sys.exit(f"{log.stem} ended with exit code {code}, see {log}")


def read_metrics(run_dir: Path) -> list[dict[str, float]]:
    return [row for _, row in objects(run_dir / "metrics.jsonl")]


if __name__ == "__main__":
    main()
