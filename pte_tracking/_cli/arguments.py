"""Arguments and error handling shared by the commands."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from pte_tracking._cli.rendering import fail
from pte_tracking._store.discovery import natural_key
from pte_tracking._store.layout import JOURNAL, MANIFEST
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.similar import ask, find_similar

_MAX_NAMED_RUNS = 3

# Typer would reject an unreadable path as a usage error (exit code 2). The commands report it with exit code 1.
directory_argument = functools.partial(typer.Argument, show_default=False, readable=False)
RunDir = Annotated[Path, directory_argument(metavar="RUN", help="Run directory (out_dir).")]


@contextlib.contextmanager
def reporting_errors(run: Path | None = None) -> Iterator[None]:
    """Exit with one line and code 1 if a run cannot be read, and log each warning only once.

    Args:
        run: Run directory that the user named. If it contains no run, the line names similar directories.
    """
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
    except RunNotFoundError as error:
        fail(str(error) + ("" if run is None or is_run(run) else suggest_run(run)), 1)
    except OSError as error:
        fail(format_error(error), 1)
    finally:
        logger.removeFilter(is_new)


def format_error(error: RunNotFoundError | OSError) -> str:
    """Format an error as one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def is_run(directory: Path) -> bool:
    """Whether a directory contains the files of a run, which may be damaged."""
    return any(os.path.lexists(directory / name) for name in (MANIFEST, JOURNAL))


def suggest_run(directory: Path) -> str:
    """Return a sentence with runs that the user may have meant by a path without a run.

    Args:
        directory: The path, which may not exist.

    Returns:
        The sentence, to be appended to a message. Empty if there is no such run.
    """
    if hint := suggest_path(directory):
        return hint
    is_directory = os.path.isdir(directory)
    root = directory if is_directory else _find_missing(directory).parent
    # A complete search takes minutes in a large directory that contains no run.
    found = itertools.chain.from_iterable(
        sorted(root.glob(f"{'*/' * depth}{MANIFEST}"), key=lambda path: natural_key(str(path))) for depth in (1, 2)
    )
    names = [f"'{path.parent}'" for path in itertools.islice(found, _MAX_NAMED_RUNS + 1)]
    if not names:
        return ""
    more = ", ..." if len(names) > _MAX_NAMED_RUNS else ""
    place = "Runs in this directory" if is_directory else "Runs nearby"
    return f". {place}: {', '.join(names[:_MAX_NAMED_RUNS])}{more}"


def suggest_path(path: Path) -> str:
    """Return a question with the names that resemble that of a missing file or directory. Empty if there are none.

    The question about an existing path names the run that contains it.
    """
    if os.path.exists(path):
        return f".{ask([str(path.parent)])}" if is_run(path.parent) else ""
    missing = _find_missing(path)
    rest = path.relative_to(missing)
    try:
        similar = [missing.parent / name for name in find_similar(missing.name, os.listdir(missing.parent))]
    except OSError:
        return ""
    complete = [other / rest for other in similar if os.path.exists(other / rest)]
    return f".{ask(map(str, complete or similar))}" if similar else ""


def _find_missing(path: Path) -> Path:
    """Return the part of a path that is missing in an existing directory."""
    return next((part for part in (path, *path.parents) if os.path.isdir(part.parent)), path)
