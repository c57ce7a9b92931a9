"""`azr-nemo doctor`: what a machine offers to a run."""

from rich.console import Console as Terminal
from rich.table import Table

from azr_nemo.cli.app import Overrides, app


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
