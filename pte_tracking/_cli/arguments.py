"""Arguments and error handling shared by the commands."""

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

# Typer would reject an unreadable path as a usage error (exit code 2). The commands report it with exit code 1.
directory_argument = functools.partial(typer.Argument, show_default=False, readable=False)
RunDir = Annotated[Path, directory_argument(help="Run directory (out_dir).")]


@contextlib.contextmanager
def reporting_errors() -> Iterator[None]:
    """Exit with one line and code 1 if a run cannot be read, and log each warning only once."""
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
    """Format an error as one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)
