"""The command line: `azr-nemo COMMAND`. Errors that the user can mend are one sentence and exit code 2."""

import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console as Terminal
from rich.table import Table
from typer.core import TyperGroup

from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import ExecutorUnavailable

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
sandbox_app = typer.Typer(no_args_is_help=True, help="The jailed executor by itself.")
app.add_typer(sandbox_app, name="sandbox")


class _RunIsUnderstood(TyperGroup):
    """`eval KEY=VALUE...` means `eval run KEY=VALUE...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = not args or args[0] in self.commands or args[0] == "--help"
        return super().parse_args(ctx, args if named else ["run", *args])


eval_app = typer.Typer(
    cls=_RunIsUnderstood,
    no_args_is_help=True,
    help="Benchmarks: azr-nemo eval checkpoint=PATH suite=math500 KEY=VALUE...",
)
app.add_typer(eval_app, name="eval")
data_app = typer.Typer(no_args_is_help=True, help="The benchmarks' data.")
app.add_typer(data_app, name="data")

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="recipe=NAME|FILE.yaml and overrides: optim.lr=1e-5")]
File = Annotated[Path, typer.Argument(metavar="FILE.jsonl")]


@app.command()
def train(
    overrides: Overrides = None, dry_run: Annotated[bool, typer.Option(help="print the resolved configuration and stop")] = False
) -> None:
    """Trains a recipe by self-play, or resumes it: azr-nemo train recipe=smollm2_135m-1n0g-megatron selfplay.steps=10"""
    from azr_nemo.settings import as_yaml, load_settings

    config = load_settings(overrides or [])
    if dry_run:
        from azr_nemo.trainer.dry_run import describe

        print(as_yaml(config), end="")
        print("\n".join(f"# {line}" for line in describe(config)))
        return
    from azr_nemo.trainer.loop import train as run

    run(config)


@app.command()
def seed(
    overrides: Overrides = None,
    source: Annotated[list[Path] | None, typer.Option("--from", help="re-validate these seed files instead of prompting a model")] = None,
    out: Annotated[Path | None, typer.Option(help="write the valid tasks to this JSONL file")] = None,
    schema: Annotated[str, typer.Option(help="of --out: native | reference")] = "native",
    report: Annotated[Path | None, typer.Option(help="with --from: write what became of every row to this JSON file")] = None,
) -> None:
    """Makes seed tasks: by prompting the recipe's model, or from files with --from, each program run again and checked.

    Files are checked within the limits of the recipe that is named, or within the defaults of all settings when none is.
    """
    from azr_nemo.settings import load_settings
    from azr_nemo.trainer.seed import seed_from_files, seed_from_model

    if report and not source:
        raise UserError("--report says what became of the rows of seed files: name them with --from FILE")
    config = load_settings(overrides or [], default_recipe=not source)
    table = seed_from_files(config, source, out, schema, report) if source else seed_from_model(config, out, schema)
    Terminal().print(table)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="a run's checkpoint directory, or with --to megatron a Hugging Face directory")],
    out: Annotated[Path, typer.Argument(help="the directory to write; it must not exist")],
    to: Annotated[str, typer.Option(help="hf | megatron")] = "hf",
) -> None:
    """Converts a checkpoint to a Hugging Face directory, or back."""
    from azr_nemo.megatron.convert import checkpoint_to_hf, hf_to_checkpoint

    if to not in ("hf", "megatron"):
        raise UserError(f"--to {to} is unknown: choose hf or megatron")
    (checkpoint_to_hf if to == "hf" else hf_to_checkpoint)(source, out)
    print(out)


@app.command()
def summary(run_dir: Path, png: Annotated[Path | None, typer.Option(help="where the curves go; RUN_DIR/summary.png")] = None) -> None:
    """A table of a run and a picture of its curves."""
    from azr_nemo.observe.summary import plot, summarise

    Terminal().print(summarise(run_dir).table())
    out = png or run_dir / "summary.png"
    plot(run_dir, out)
    print(f"curves: {out}")


@app.command()
def grade(file: File, timeout: Annotated[float, typer.Option(help="seconds of wall time a call")] = 5.0) -> None:
    """Grades rows {"task_type", "program", "input"|"inputs", "output"|"outputs", "answer"}; prints {"score", "reason"} for each."""
    from azr_nemo.config import ExecutorConfig
    from azr_nemo.selfplay.verification import Verifier, grade_rows
    from azr_nemo.trainer.executors import limits, make_executor

    config = ExecutorConfig(wall_s=timeout, cpu_s=timeout)
    with make_executor(config) as executor:
        for row in grade_rows(_rows(file), Verifier(executor, limits(config))):
            print(json.dumps(row))


@app.command()
def doctor(overrides: Overrides = None) -> None:
    """Says what this machine offers: versions, devices, every rung of the jail, the executor (with executor=... the one a run would have), the cache."""
    from azr_nemo.settings import load_settings
    from azr_nemo.trainer.doctor import report

    config = load_settings(overrides or [], default_recipe=False)
    table = Table("what", "found", title="azr-nemo doctor")
    for name, value in report(config.executor):
        table.add_row(name, value)
    Terminal().print(table)


@eval_app.command("run")
def eval_run(
    settings: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="checkpoint=PATH suite=[...] and settings")],
) -> None:
    """Asks a checkpoint the items of some suites and grades its answers. A killed evaluation goes on with the same command.

    Settings and their defaults: azr_nemo/evaluation/settings.py.
    """
    from azr_nemo.evaluation import results
    from azr_nemo.evaluation.command import evaluate
    from azr_nemo.evaluation.settings import load_eval_settings
    from azr_nemo.evaluation.suites import groups
    from azr_nemo.observe.console import Console

    with Console() as console:
        path = evaluate(load_eval_settings(settings, groups()), console)
    Terminal().print(results.table(results.read(path)["suites"]))
    print(path)


@eval_app.command("compare")
def eval_compare(
    first: Annotated[Path, typer.Argument(help="`out` directory of an evaluation")],
    second: Annotated[Path, typer.Argument(help="another's")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the comparison to this file too")] = None,
) -> None:
    """Compares two evaluations item by item: a paired bootstrap per suite, and the averages of code, maths and both, as Markdown."""
    from azr_nemo.evaluation import results
    from azr_nemo.evaluation.paired import compare

    bodies = [results.read(path)["suites"] for path in (first, second)]
    before, after = ({name: figures["scores"] for name, figures in body.items()} for body in bodies)
    groups = {name: figures["group"] for body in bodies for name, figures in body.items()}
    comparison = compare(before, after, groups, (str(first), str(second)))
    print(comparison.as_markdown())
    if json_file:
        try:
            json_file.write_text(comparison.as_json(), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {json_file} cannot be written: {error.strerror}") from None


@data_app.command("prepare")
def data_prepare(
    source: Annotated[
        list[Path], typer.Option(help="a public file or a directory of them; `hub` fetches from the Hugging Face hub; may be repeated")
    ],
    to: Annotated[Path, typer.Option(help="the directory to write")] = Path("data/eval"),
    suite: Annotated[list[str] | None, typer.Option(help="only these suites; may be repeated")] = None,
) -> None:
    """Builds the benchmarks' items from local copies of the public files, checks counts and hashes, and says where missing files come from."""
    from azr_nemo.config import ExecutorConfig
    from azr_nemo.evaluation.prepare import prepare
    from azr_nemo.evaluation.suite import Tools
    from azr_nemo.evaluation.suites import SUITES
    from azr_nemo.trainer.executors import make_executor

    with make_executor(ExecutorConfig(wall_s=30.0, cpu_s=30.0, memory_mb=2048)) as executor:
        prepare(source, to, SUITES, Tools(executor), suite, say=lambda sentence: print(sentence, flush=True))


@sandbox_app.command("run")
def sandbox_run(
    file: File,
    deterministic: Annotated[bool, typer.Option(help="also demand equal results across runs and hash seeds")] = False,
    timeout: Annotated[float, typer.Option(help="seconds of wall time a call")] = 5.0,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="URL of a server to run them, in place of this machine; may be repeated")
    ] = None,
) -> None:
    """Runs rows {"program", "inputs"}; prints {"outcomes": [{"status", "value", "error", "cpu_s", "wall_s"}]} for each."""
    from azr_nemo.sandbox.run import run_file
    from azr_nemo.settings import load_settings
    from azr_nemo.trainer.executors import make_executor

    remote = ["executor=sandbox_fusion", f"executor.endpoints={json.dumps(endpoint)}"] if endpoint else []
    with make_executor(load_settings(remote, default_recipe=False).executor) as executor:
        for line in run_file(file, executor, deterministic, timeout):
            print(line)


@sandbox_app.command("serve")
def sandbox_serve(
    host: Annotated[str, typer.Option(help="address to listen on; any but this machine's own needs a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8080,
    token: Annotated[
        str | None, typer.Option(envvar="AZR_NEMO_SANDBOX_TOKEN", help="what clients must show, as bearer or as password")
    ] = None,
    open_to_all: Annotated[bool, typer.Option("--open-to-all", help="serve other machines without a token")] = False,
    workers: Annotated[int, typer.Option(min=0, help="jailed workers; 0: one per core")] = 0,
    modules: Annotated[
        list[str] | None, typer.Option(help="installed package that programs may import, such as numpy; may be repeated")
    ] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="requests at once; more are answered 429")] = 256,
    body_mb: Annotated[int, typer.Option(min=1, help="largest body in MiB; larger ones are answered 413")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="longest time limit that a request may ask for")] = 300.0,
    memory_mb: Annotated[int, typer.Option(min=16, help="most memory that a request may ask for, in MiB")] = 2048,
) -> None:
    """Serves the jailed executor over HTTP, in the place of a Sandbox-Fusion server: POST /run_code, GET /v1/ping, GET /metrics."""
    from azr_nemo.sandbox.local.pool import LocalPool
    from azr_nemo.sandbox.server import Service, is_this_machine, serve

    if not token and not open_to_all and not is_this_machine(host):
        raise UserError(
            f"--host {host} lets other machines run programs here: set AZR_NEMO_SANDBOX_TOKEN, or say --open-to-all if that is meant"
        )
    service = Service(token, in_flight, body_mb << 20, seconds, memory_mb)
    serve(LocalPool(workers, queue=in_flight + 1, modules=modules or []), service, host, port)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number} is not a JSON object: every line must be one")
            yield f"{path}:{number}", row


def main() -> None:
    """Entry point of `azr-nemo`."""
    # Megatron says at import what it does without CUDA packages; `azr-nemo doctor` says it better.
    warnings.filterwarnings("ignore", category=UserWarning, module="megatron")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars would tear ours
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are local directories; nothing is looked up behind the user's back
    try:
        app()
    except (UserError, ExecutorUnavailable) as error:
        print(f"azr-nemo: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("azr-nemo: stopped; nothing was lost that a checkpoint held, the same command goes on from there", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
