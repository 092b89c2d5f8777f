"""Command-line interface, installed as ``pte-tracking``."""

from __future__ import annotations

from pte_tracking._store.dependencies import check_required

try:
    check_required()  # first, because the imports below may fail with an older version
except ImportError as error:
    raise SystemExit(str(error)) from None

import typer

from pte_tracking._cli.backends import list_backends
from pte_tracking._cli.compare import compare
from pte_tracking._cli.convert import convert
from pte_tracking._cli.export import export
from pte_tracking._cli.import_run import import_run
from pte_tracking._cli.list_runs import list_runs
from pte_tracking._cli.show import show
from pte_tracking._cli.sync import OrderedCommand, sync
from pte_tracking._cli.verify import verify
from pte_tracking._store.messages import configure_logging

# The help of rich uses colors that are unreadable on some backgrounds, and boxes that take space of a narrow terminal.
app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command("list")(list_runs)
app.command()(show)
app.command()(compare)
app.command()(export)
app.command("import")(import_run)
app.command()(verify)
app.command()(convert)
app.command("backends")(list_backends)
app.command(cls=OrderedCommand)(sync)


@app.callback()
def main() -> None:
    """Inspect runs and deliver their events to backends.

    Exit codes: 0 success, 1 pending or damaged data or no run found, 2 usage error.
    """
    configure_logging("%(message)s")
