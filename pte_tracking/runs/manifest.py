"""``run.json``: what a run is and where it is delivered to."""

from __future__ import annotations

import dataclasses
import getpass
import importlib.util
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pte_tracking.runs import sink as sinks_module
from pte_tracking.runs.files import write_atomically
from pte_tracking.runs.journal import tail
from pte_tracking.runs.layout import JOURNAL, MANIFEST, MANIFEST_LOCK
from pte_tracking.runs.lock import Lock
from pte_tracking.runs.sink import Sink
from pte_tracking.runs.values import to_text

FORMAT = 1
_LATEST = 250_000_000_000  # in the year 9892: later ones have no date in Python


class NotARun(ValueError):
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

    def build(self) -> Sink:
        """The sink again.

        Raises:
            ValueError: No sink of that name is installed, its product is missing, or the options do not fit it.
        """
        found = sinks_module.find(self.name)
        _check_installed(found)
        try:
            return found(**self.options)
        except TypeError as error:
            raise ValueError(f"sinks: {self.name!r} does not take the options {self.options!r}: {error}") from error


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
    start_time: Annotated[float, msgspec.Meta(ge=0, lt=_LATEST)]
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
            NotARun: There is none, it is damaged, or a newer version wrote it.
        """
        path = directory / MANIFEST
        if path.is_fifo():  # to read it would be to wait for ever
            raise NotARun(f"{path}: damaged or not ours: it is a named pipe")
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise NotARun(f"{directory}: no run here (there is no {MANIFEST})") from None
        try:
            found = msgspec.json.decode(data)
            if isinstance(found, dict) and isinstance(found.get("format"), int) and found["format"] > FORMAT:
                raise NotARun(
                    f"{path}: format {found['format']} is newer than this version reads ({FORMAT}); "
                    "upgrade pte-tracking"
                )
            return msgspec.convert(found, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise NotARun(f"{path}: damaged or not ours: {error}") from error

    def save(self, directory: Path) -> None:
        """Write it, whole or not at all."""
        write_atomically(directory / MANIFEST, msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def find_run(directory: Path) -> Manifest:
    """The manifest of a run that has a record.

    Raises:
        NotARun: There is no run, this version cannot read it, or not one event of it is there.
    """
    manifest, path = Manifest.load(directory), directory / JOURNAL
    if not path.is_file():
        raise NotARun(f"{directory}: a run without a journal (there is no file {JOURNAL})")
    if tail(path)[0] is None:
        raise NotARun(f"{path}: holds no event: cut off at its beginning, or not ours")
    return manifest


def change(directory: Path, how: Callable[[Manifest], Manifest], fresh: Manifest | None = None) -> Manifest:
    """Change the manifest; the trainer and a ``sync`` beside it do not overwrite each other's changes.

    Args:
        directory: The run's directory.
        how: What the manifest becomes.
        fresh: A new run's manifest, to begin with instead of the one that is there.

    Raises:
        NotARun: There is none.
    """
    held = Lock(directory / MANIFEST_LOCK, patience=5)
    try:
        changed = how(fresh or Manifest.load(directory))
        changed.save(directory)
        return changed
    finally:
        held.release()


def check_sinks(sinks: Iterable[str | Sink]) -> list[Sink]:
    """Sinks from names and configured objects.

    Raises:
        ValueError: A name is unknown, or a sink's product is not installed.
        TypeError: Something is neither a name nor a sink, or a sink that no entry point names.
    """
    if isinstance(sinks, str | Sink):
        raise TypeError(f"sinks: expected a list of names or sinks, got {sinks!r}; write [{sinks!r}]")
    checked = []
    for sink in sinks:
        if isinstance(sink, str):
            found = sinks_module.find(sink)
            _check_installed(found)
            sink = found()
        elif not isinstance(sink, Sink):
            raise TypeError(
                f"sinks: expected names ({', '.join(sinks_module.names())}) or Sink objects, "
                f"got {sink!r} of type {type(sink).__name__}"
            )
        elif not _can_be_found(type(sink)):
            raise TypeError(
                f"sinks: {type(sink).__name__} is not what the entry point {sink.name!r} of the group "
                f"{sinks_module.ENTRY_POINTS!r} names, so the delivery process could not find it; "
                "declare it in the pyproject.toml of its package and install that"
            )
        else:
            _check_installed(type(sink))
        _fields(sink)
        checked.append(sink)
    return checked


def entries(sinks: Sequence[Sink], known: Sequence[SinkEntry] = ()) -> list[SinkEntry]:
    """The known entries, and those of further sinks with their environment resolved.

    A sink that was given like a known one is that one, wherever the environment points to by now: a resumed run goes on
    where it began.
    """
    made = list(known)
    for sink in sinks:
        given = _fields(sink)
        if any(entry.name == sink.name and entry.given == given for entry in made):
            continue
        keys = {entry.key for entry in made}
        candidates = [sink.name, *(f"{sink.name}-{number}" for number in range(2, len(keys) + 2))]
        key = next(candidate for candidate in candidates if candidate not in keys)
        made.append(SinkEntry(key, sink.name, _fields(sink.resolve()), given))
    return made


def _can_be_found(sink: type[Sink]) -> bool:
    try:
        return sinks_module.find(sink.name) is sink
    except ValueError:
        return False


def _fields(sink: Sink) -> dict[str, Any]:
    """A sink's configuration as it comes back from ``run.json``."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(dataclasses.asdict(sink)))
    except (TypeError, ValueError) as error:
        raise TypeError(f"sinks: {sink.name!r} has a field that is no plain JSON: {error}") from error
    return fields


def _check_installed(sink: type[Sink]) -> None:
    if sink.requires and importlib.util.find_spec(sink.requires) is None:
        raise ValueError(f"sinks: {sink.name!r} needs the package {sink.requires!r}; install it with: {sink.install}")


def _context() -> dict[str, str]:
    source = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] not in ("", "-c") else "<interactive>"
    folder = os.path.dirname(source) if os.path.exists(source) else os.getcwd()
    found = {
        "host": os.uname().nodename,
        "command": " ".join([os.path.basename(sys.executable), *sys.argv]),
        "source": source,
        "git_commit": _git_commit(folder),
    }
    try:
        found["user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        found["user"] = str(os.getuid())
    return {key: value.encode(errors="replace").decode() for key, value in found.items() if value}


def _git_commit(folder: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=2, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
