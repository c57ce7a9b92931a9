"""`azr-nemo sandbox`: the jailed executor by itself."""

from typing import Annotated

import typer

from azr_nemo.cli.app import File, app, number
from azr_nemo.errors import UserError

sandbox_app = typer.Typer(no_args_is_help=True, help="The jailed executor by itself.")
app.add_typer(sandbox_app, name="sandbox")


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
    from azr_nemo.sandbox.configured import make_executor
    from azr_nemo.sandbox.run_rows import run_file
    from azr_nemo.settings.consistency import check_executor
    from azr_nemo.settings.schema import ExecutorConfig

    config = ExecutorConfig(name="sandbox_fusion", endpoints=endpoint) if endpoint else ExecutorConfig()
    check_executor(config)
    with make_executor(config) as executor:
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
    seconds: Annotated[float, number("--seconds", "longest time limit that a request may ask for", least=0.1, most=86_400)] = 300.0,
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
