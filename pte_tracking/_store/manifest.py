"""``run.json``: what a run is and where it is delivered to."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pte_tracking._store.files import write_atomically
from pte_tracking._store.layout import MANIFEST, MANIFEST_LOCK
from pte_tracking._store.lock import Lock
from pte_tracking._store.values import to_text

FORMAT = 2
_FIRST_FORMAT = 1  # the first versions wrote no number
_MAX_START_TIME = 250_000_000_000  # in the year 9892: later ones have no date in Python


class RunNotFoundError(ValueError):
    """The folder holds no run, or one that this version cannot read."""


class SinkEntry(msgspec.Struct, frozen=True):
    """One place where the run is delivered to.

    Attributes:
        key: Names it within the run: the sink's name, with a number behind it for a second one of the kind.
        name: The sink's name, that of an installed entry point.
        options: The fields of its configuration, with the environment resolved when the run started.
        given: The fields as the user gave them.
    """

    key: str
    name: str
    options: dict[str, Any] = {}
    given: dict[str, Any] = {}


class Manifest(msgspec.Struct, frozen=True):
    """What stands in ``run.json``.

    Attributes:
        id: The run's identity: 32 hexadecimal digits.
        name: Its name, for people.
        start_time: When it first started, in seconds since the epoch.
        sinks: Where it is delivered to.
        files: Globs of what belongs to the run in its directory; moved aside together.
        context: Where it comes from: user, host, command, source, git_commit.
        world_size: How many processes train together, this time.
        format: The version of the directory's format.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    name: str
    start_time: Annotated[float, msgspec.Meta(ge=0, lt=_MAX_START_TIME)]
    sinks: list[SinkEntry] = []
    files: list[str] = []
    context: dict[str, str] = {}
    world_size: int = 1
    format: int = FORMAT

    @classmethod
    def new(cls, directory: Path, name: str | None) -> Manifest:
        """The manifest of a run that starts now."""
        run_id = uuid.uuid4().hex
        return cls(run_id, name or f"{to_text(directory.name)}-{run_id[:6]}", time.time(), context=_context())

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read it.

        Raises:
            RunNotFoundError: There is none, it is damaged, or a newer version wrote it.
        """
        path = directory / MANIFEST
        if path.is_fifo():  # to read it would be to wait for ever
            raise RunNotFoundError(f"{path}: damaged or not ours: it is a named pipe")
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise RunNotFoundError(f"{directory}: no run here (there is no {MANIFEST})") from None
        try:
            content = msgspec.json.decode(data)
            _check_format(path, content)
            return msgspec.convert(content, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RunNotFoundError(f"{path}: damaged or not ours: {error}") from error

    def save(self, directory: Path) -> None:
        """Write it, whole or not at all."""
        write_atomically(directory / MANIFEST, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def update_manifest(directory: Path, update: Callable[[Manifest], Manifest], new: Manifest | None = None) -> Manifest:
    """Change the manifest; the trainer and a ``sync`` beside it do not overwrite each other's changes.

    Args:
        directory: The run's directory.
        how: What the manifest becomes.
        fresh: A new run's manifest, to begin with instead of the one that is there.

    Raises:
        RunNotFoundError: There is none.
    """
    held = Lock(directory / MANIFEST_LOCK, timeout=5)
    try:
        changed = update(new or Manifest.load(directory))
        changed.save(directory)
        return changed
    finally:
        held.release()


def check_format(directory: Path) -> None:
    """Check the format of a run directory without changing it. Other faults of ``run.json`` are not reported.

    Args:
        directory: The run directory, which may not exist.

    Raises:
        RunNotFoundError: If the directory contains a run of another format.
    """
    path = directory / MANIFEST
    try:
        content = msgspec.json.decode(path.read_bytes()) if path.is_file() else None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    _check_format(path, content)


def _check_format(path: Path, content: object) -> None:
    # Other programs write files of this name, too. Without an ID, the file is not reported as an earlier format.
    if not isinstance(content, dict) or "id" not in content:
        return
    number = content.get("format", _FIRST_FORMAT)
    if type(number) is not int or number == FORMAT:
        return
    remedy = "Upgrade pte-tracking" if number > FORMAT else "Use the version that wrote it"
    raise RunNotFoundError(
        f"{path}: run directory format {number} is not supported (this version reads format {FORMAT}). "
        f"{remedy}, or choose another directory."
    )


def _context() -> dict[str, str]:
    source = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c") else "<interactive>"
    folder = os.path.dirname(source) if os.path.exists(source) else os.getcwd()
    context = {
        "host": os.uname().nodename,
        "command": " ".join([os.path.basename(sys.executable), *sys.argv]),
        "source": source,
        "git_commit": _git_commit(folder),
    }
    try:
        context["user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        context["user"] = str(os.getuid())
    return {key: value.encode(errors="replace").decode() for key, value in context.items() if value}


def _git_commit(folder: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=2, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
