"""ClearML sink."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pte_backends._options import check_texts
from pte_tracking.sinks import Connection, Display, EventKind, Limits, Location, RunView, Sink


@dataclasses.dataclass(frozen=True)
class ClearMLSink(Sink):
    """Sink that writes an offline session of ClearML to ``clearml/offline/`` in the run directory.

    Upload the session with ``clearml-task --import-offline-session``. The sink itself sends nothing and needs no
    account. The project is read from ``CLEARML_PROJECT`` if it is not set.

    Args:
        project: Name of the project. Defaults to None: the environment, or ``pte_tracking``.
        task_name: Name of the task. Defaults to None: the environment variable ``CLEARML_TASK``, or the name of the
            run.

    Raises:
        TypeError: If an option is not a string.

    Example:
        >>> from pte_backends.clearml import ClearMLSink
        >>> ClearMLSink(project="digits").project
        'digits'
    """

    name: ClassVar[str] = "clearml"
    requires: ClassVar[str | None] = "clearml"
    install: ClassVar[str] = "pip install 'pte-tracking[clearml]'"
    files: ClassVar[tuple[str, ...]] = ("clearml",)
    # Keys of figures and texts become names of files, which contain no control characters.
    limits: ClassVar[Limits] = Limits(key_characters=re.compile(r"[^\x00-\x1f]"), batch_values=10_000)
    shows: ClassVar[Mapping[EventKind, Display] | None] = {
        "metrics": "native",
        "params": "native",
        "tags": "native",
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
        "checkpoint": "artifact",
        "status": "artifact",
    }

    project: str | None = None
    task_name: str | None = None

    def __post_init__(self) -> None:
        check_texts(self, "project", "task_name")

    def resolve(self) -> ClearMLSink:
        """Resolve project and task name from the environment.

        Returns:
            A sink with the project set.
        """
        return dataclasses.replace(
            self,
            project=self.project or os.environ.get("CLEARML_PROJECT") or "pte_tracking",
            task_name=self.task_name or os.environ.get("CLEARML_TASK"),
        )

    @property
    def destination(self) -> object:
        """Nothing, because a run directory contains one session. Other options rewrite it."""
        return ()

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location | None:
        """Return the command that uploads the session.

        Args:
            directory: Absolute path of the run directory.
            state: Last saved state of a connection.

        Returns:
            The command. None before the first delivery.
        """
        if not state:
            return None
        session = directory / state["folder"]
        return Location(command=f"clearml-task --import-offline-session {shlex.quote(str(session))}")

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Open the session, or build it again if its files do not have their saved sizes.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.

        Raises:
            SinkClosedError: If ClearML cannot be switched to offline mode.
        """
        # The import of the client library takes seconds.
        from pte_backends.clearml._connection import ClearMLConnection

        sink = self.resolve()
        return ClearMLConnection(sink.project or "", sink.task_name or run.name, run, state)
