"""Trackio sink."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pte_tracking.sinks import Connection, Display, EventKind, Limits, Location, RunView, Sink

#: Keys that Trackio adds to each row that it reads, or refuses in ``trackio.log``.
_OWN_KEYS = frozenset({"project", "run", "timestamp", "step", "time", "metrics"})


@dataclasses.dataclass(frozen=True)
class TrackioSink(Sink):
    """Sink that writes to the local database of a Trackio project.

    Show it with ``trackio show``. The sink itself sends nothing and needs no account. The database is located in
    ``TRACKIO_DIR``, or in Trackio's directory in the cache of Hugging Face if that variable is not set.

    Args:
        project: Name of the project. Defaults to ``"default"``.

    Raises:
        TypeError: If the project is not a string.
        ValueError: If the project is an empty string.

    Example:
        >>> from pte_backends.trackio import TrackioSink
        >>> TrackioSink("digits").project
        'digits'
    """

    name: ClassVar[str] = "trackio"
    requires: ClassVar[str | None] = "trackio"
    install: ClassVar[str] = "pip install 'pte-tracking[trackio]'"
    # A key of a row has one kind of value.
    limits: ClassVar[Limits] = Limits(
        batch_values=10_000,
        shared_names=("metric", "figure", "image", "histogram", "text", "table", "html", "audio", "video"),
        reserved_names=_OWN_KEYS,
    )
    shows: ClassVar[Mapping[EventKind, Display] | None] = {
        "metrics": "native",
        "params": "native",
        "tags": "artifact",
        "figure": "native",
        "image": "native",
        "histogram": "native",
        "text": "native",
        "table": "native",
        "html": "native",
        "audio": "native",
        "video": "native",
        "dataset": "artifact",
        "artifact": "native",
        "checkpoint": "native",
        "status": "artifact",
    }

    project: str = "default"
    #: Directory of the databases. Set by :meth:`resolve`.
    _directory: str = dataclasses.field(default="", repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.project, str):
            raise TypeError(f"project: expected a string, got {self.project!r} of type {type(self.project).__name__}")
        if not self.project:
            raise ValueError("project: expected a non-empty string. Omit the option to use the default.")

    def resolve(self) -> TrackioSink:
        """Resolve the directory of the databases from the environment.

        Returns:
            A sink with the directory set.
        """
        return dataclasses.replace(self, _directory=self._directory or str(_find_directory()))

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location:
        """Return the command that shows the run.

        Args:
            directory: Absolute path of the run directory.
            state: Last saved state of a connection.

        Returns:
            The command. It sets ``TRACKIO_DIR`` if this process has another directory.
        """
        command = f"trackio show --project {shlex.quote(self.project)}"
        if self._directory and Path(self._directory) != _find_directory():
            command = f"TRACKIO_DIR={shlex.quote(self._directory)} {command}"
        return Location(command=command)

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Open the database of the project.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.

        Raises:
            SinkClosedError: If Trackio does not accept the project, uses another directory in this process, or has
                lost the run.
        """
        directory = self.resolve()._directory
        if "trackio" not in sys.modules:
            os.environ["TRACKIO_DIR"] = directory  # read once, by the import
        from pte_backends.trackio._connection import TrackioConnection

        return TrackioConnection(self.project, Path(directory), run, is_started=bool(state))


def _find_directory() -> Path:
    """Return the directory that Trackio uses."""
    if directory := os.environ.get("TRACKIO_DIR"):
        return Path(directory).absolute()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("HF_HOME") or caches / "huggingface").expanduser().absolute() / "trackio"
