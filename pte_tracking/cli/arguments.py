"""Arguments that several commands take, and what is said of a folder that is no run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pte_tracking.cli.rendering import fail
from pte_tracking.runs.manifest import NotARun

RunDir = Annotated[Path, typer.Argument(help="The run's directory (out_dir).", show_default=False)]


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """What cannot be read as a run ends the command with one line and exit code 1."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (NotARun, OSError) as error:
        fail(str(error), 1)
