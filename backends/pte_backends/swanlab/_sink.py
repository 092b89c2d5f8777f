"""SwanLab sink."""

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

_PROJECT = re.compile(r"[0-9a-zA-Z_\-+.]{1,100}")


@dataclasses.dataclass(frozen=True)
class SwanLabSink(Sink):
    """Sink that writes ``swanlab/run-*/`` to the run directory, in the format of SwanLab's offline mode.

    Upload the run with ``swanlab sync``. The sink itself sends nothing, needs no account, and starts no process or
    thread of the client library. Options that are not set are read from ``SWANLAB_PROJ_NAME``, ``SWANLAB_WORKSPACE``
    and ``SWANLAB_EXP_NAME``.

    Args:
        project: Name of the project: up to 100 ASCII letters, digits, and ``_-+.``. Defaults to None: the environment,
            or ``uncategorized``.
        workspace: User or organization that owns the project. Defaults to None: the environment, or the default of the
            account.
        run_name: Display name of the run. Defaults to None: the environment, or the name of the run.

    Raises:
        TypeError: If an option is not a string.
        ValueError: If SwanLab does not accept the name of the project.

    Example:
        >>> from pte_backends.swanlab import SwanLabSink
        >>> SwanLabSink(project="digits").project
        'digits'
    """

    name: ClassVar[str] = "swanlab"
    requires: ClassVar[str | None] = "swanlab"
    install: ClassVar[str] = "pip install 'pte-tracking[swanlab]'"
    files: ClassVar[tuple[str, ...]] = ("swanlab",)
    limits: ClassVar[Limits] = Limits(
        key_characters=re.compile(r"[^\x00-\x1f\x7f]"),
        key_length=512,
        key_is_path=True,
        batch_values=10_000,
        # A key has one kind of value.
        shared_names=("metric", "figure", "image", "histogram", "text", "html", "audio", "video"),
    )
    shows: ClassVar[Mapping[EventKind, Display] | None] = {
        "metrics": "native",
        "params": "native",
        "tags": "artifact",
        "figure": "native",
        "image": "native",
        "histogram": "native",
        "text": "native",
        "html": "native",
        "audio": "native",
        "video": "native",
        "dataset": "artifact",
        "artifact": "native",
        "status": "native",
    }

    project: str | None = None
    workspace: str | None = None
    run_name: str | None = None

    def __post_init__(self) -> None:
        check_texts(self, "project", "workspace", "run_name")
        if self.project is not None and not _PROJECT.fullmatch(self.project):
            raise ValueError(
                f"project: expected 1 to 100 ASCII letters, digits, or characters of '_-+.', got {self.project!r}"
            )

    def resolve(self) -> SwanLabSink:
        """Resolve project, workspace, and run name from the environment.

        Returns:
            A sink with the project set.
        """
        return dataclasses.replace(
            self,
            project=self.project or os.environ.get("SWANLAB_PROJ_NAME") or "uncategorized",
            workspace=self.workspace or os.environ.get("SWANLAB_WORKSPACE"),
            run_name=self.run_name or os.environ.get("SWANLAB_EXP_NAME"),
        )

    @property
    def destination(self) -> object:
        """Nothing, because a run directory contains one SwanLab run. Other options rewrite its file."""
        return ()

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location | None:
        """Return the command that uploads the run.

        Args:
            directory: Absolute path of the run directory.
            state: Last saved state of a connection.

        Returns:
            The place. None before the first delivery.
        """
        if "path" not in state:
            return None
        path = shlex.quote(str(directory / state["path"]))
        return Location(run_id=state["run_id"], command=f"swanlab sync --id {state['run_id']} {path}")

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Truncate the file to its saved size.

        Events after the saved position are delivered again.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.
        """
        # The import of the client library takes half a second.
        from pte_backends.swanlab._connection import SwanLabConnection

        sink = self.resolve()
        return SwanLabConnection(sink.project or "", sink.workspace, sink.run_name, run, state)
