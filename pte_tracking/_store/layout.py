"""Names of the files in a run directory."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from pte_tracking._store.printable import describe_value
from pte_tracking._store.values import check_key

MANIFEST = "run.json"
JOURNAL = "journal.jsonl"
CHECKPOINTS = "checkpoints.json"
WRITER_LOCK = ".lock"
PREVIOUS = "previous"

FIGURES = "figures"
IMAGES = "images"
MEDIA = "media"
ARTIFACTS = "artifacts"
PROVENANCE = "provenance"

DELIVERY = "delivery"
DELIVERY_LOCK = "delivery/lock"
DELIVERY_LOG = "delivery/log.txt"
MANIFEST_LOCK = "delivery/run.json.lock"
CONTROL = "delivery/control.json"
CONTROL_LOCK = "delivery/control.json.lock"

#: Names that other files in the directory must not have.
RESERVED_NAMES = frozenset(
    {MANIFEST, JOURNAL, CHECKPOINTS, WRITER_LOCK, PREVIOUS, FIGURES, IMAGES, MEDIA, ARTIFACTS, PROVENANCE, DELIVERY}
)

#: Scheme of a URL. ``Path("s3://bucket")`` has only one slash.
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


def check_directory(argument: str, directory: object) -> None:
    """Check a path that is passed as run directory.

    Args:
        argument: Name of the argument.
        directory: The path.

    Raises:
        TypeError: If it is not a path.
        ValueError: If it is empty or a URL, or begins with ``~``.
        NotADirectoryError: If it is a file.
    """
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"{argument}: expected a path, got {describe_value(directory)}")
    text = os.fsdecode(directory)
    if text == "~" or text.startswith(f"~{os.sep}"):
        raise ValueError(f"{argument}: got {text!r}, which Python does not expand. Pass os.path.expanduser({text!r}).")
    if os.path.isfile(directory):
        raise NotADirectoryError(f"{argument}: {text!r} is a file. Pass a directory.")
    if not os.fspath(directory):
        raise ValueError(f"{argument}: expected a non-empty path, got ''. Pass '.' for the current directory.")
    check_is_local(directory, argument)


def check_is_local(path: str | os.PathLike[str], argument: str) -> None:
    """Check that a path is not the URL of an object store, which would become a local directory such as ``s3:``.

    Args:
        path: Path of a directory.
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: If the path begins with a scheme such as ``s3://``.
    """
    text = os.fsdecode(path)
    if _SCHEME.match(text):
        raise ValueError(
            f"{argument}: expected a local directory, got the URL {text!r}. Pass a local directory. To keep the "
            f"snapshots in an object store and to resume from there, pass extensions.snapshot(mirror={text!r})."
        )


def check_file_name(name: object, argument: str) -> str:
    """Check that a file name can be used in a run directory.

    Args:
        name: A relative path such as ``"log"`` or ``"val/log"``.
        argument: Name of the argument, for the error message.

    Returns:
        The name.

    Raises:
        TypeError: If the name is not a string.
        ValueError: If the path is outside the directory, is not normalized, or begins with a reserved name.

    Example:
        >>> from pte_tracking.sinks import check_file_name
        >>> check_file_name("val/log", "log")
        'val/log'
    """
    path = PurePosixPath(check_key(name, argument))
    is_outside = path.is_absolute() or not path.name or ".." in path.parts
    if is_outside or path.as_posix() != name or path.parts[0] in RESERVED_NAMES or "\0" in path.as_posix():
        raise ValueError(
            f"{argument}: expected a relative path such as 'log' or 'val/log' "
            f"that does not begin with any of {', '.join(sorted(RESERVED_NAMES))}, got {name!r}"
        )
    return path.as_posix()
