"""`azr-nemo eval | data`: benchmarks and their data."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console as Terminal
from typer.core import TyperGroup

from azr_nemo.cli.app import HelpSettings, app, print_settings
from azr_nemo.cli.waiting import choose_waiting
from azr_nemo.errors import UserError


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


@eval_app.command("run")
def eval_run(
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="checkpoint=PATH suite=[...] and settings")] = None,
    help_settings: HelpSettings = False,
) -> None:
    """Asks a checkpoint the items of some suites and grades its answers. A killed evaluation goes on with the same command."""
    from azr_nemo.evaluation import results
    from azr_nemo.evaluation.all_suites import groups
    from azr_nemo.evaluation.command import evaluate
    from azr_nemo.evaluation.eval_settings import REGISTERED, EvalSettings, load_eval_settings
    from azr_nemo.observe.console import Console

    if help_settings:
        print_settings(EvalSettings, REGISTERED, settings)
        return
    choose_waiting()
    with Console() as console:
        path = evaluate(load_eval_settings(settings or [], groups()), console)
    Terminal().print(results.table(results.read(path)["suites"]))
    print(path)


@eval_app.command("compare")
def eval_compare(
    first: Annotated[Path, typer.Argument(help="`out` directory of an evaluation")],
    second: Annotated[Path, typer.Argument(help="another's")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the comparison to this file too")] = None,
) -> None:
    """Compares two evaluations item by item: a paired bootstrap per suite, and the averages of code, maths and both, as Markdown. Then what each
    difference is made of: answers that became well-formed, and well-formed ones that became right."""
    from azr_nemo.evaluation import form_and_substance, results
    from azr_nemo.evaluation.statistics import compare

    bodies = [results.read(path)["suites"] for path in (first, second)]
    before, after = ({name: figures["scores"] for name, figures in body.items()} for body in bodies)
    groups = {name: figures["group"] for body in bodies for name, figures in body.items()}
    comparison = compare(before, after, groups, (str(first), str(second)))
    print(comparison.as_markdown())
    one, other = (path if path.is_dir() else path.parent for path in (first, second))
    if splits := form_and_substance.splits_of(one, other, before):
        print(form_and_substance.table(splits))
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
    """Builds the benchmarks' items from local copies of the public files, checks counts and hashes, and says where missing files come from.

    A file that does not convert is named with the reason, the others go on, and the exit code is 1.
    """
    from azr_nemo.evaluation.all_suites import SUITES
    from azr_nemo.evaluation.prepare import prepare
    from azr_nemo.evaluation.suite import Tools
    from azr_nemo.observe.console import Console
    from azr_nemo.sandbox.configured import make_executor
    from azr_nemo.settings.schema import ExecutorConfig

    with (
        make_executor(ExecutorConfig(wall_s=30.0, cpu_s=30.0, memory_mb=2048)) as executor,
        Console() as console,
        console.phase("suites") as phase,
    ):
        done = prepare(source, to, SUITES, Tools(executor), suite, say=console.note, phase=phase)
    if done.refused:
        raise typer.Exit(1)
