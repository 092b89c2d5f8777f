"""Arguments that several commands take, and what is said of a folder that is no run."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pte_tracking._cli.rendering import fail
from pte_tracking._store.manifest import RunNotFoundError

# What may not be read is told as every other trouble is; Typer would take it for wrong use.
directory_argument = functools.partial(typer.Argument, show_default=False, readable=False)
RunDir = Annotated[Path, directory_argument(help="The run's directory (out_dir).")]


@contextlib.contextmanager
def reporting_errors() -> Iterator[None]:
    """What cannot be read as a run ends the command with one line and exit code 1; nothing is warned of twice."""
    messages: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        count = len(messages)
        messages.add(record.getMessage())
        return len(messages) > count

    logger = logging.getLogger("pte_tracking")
    logger.addFilter(is_new)
    try:
        yield
    except BrokenPipeError:
        raise
    except (RunNotFoundError, OSError) as error:
        fail(format_error(error), 1)
    finally:
        logger.removeFilter(is_new)


def format_error(error: RunNotFoundError | OSError) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)
