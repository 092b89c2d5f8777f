"""Weights & Biases sink."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pte_backends._options import check_texts
from pte_tracking.sinks import Connection, Display, EventKind, Limits, RunView, Sink

_OWN_KEYS = frozenset({"iteration", "_step", "_timestamp", "_runtime", "_wandb"})


@dataclasses.dataclass(frozen=True)
class WandbSink(Sink):
    """Sink that writes ``wandb/offline-run-*/`` to the run directory, in the format of the W&B offline mode.

    Upload the run with ``wandb sync``. The sink itself sends nothing, needs no account, and starts no process. Options
    that are not set are read from ``WANDB_PROJECT``, ``WANDB_ENTITY`` and ``WANDB_NAME``.

    Args:
        project: Name of the project. Defaults to None: the environment, or ``uncategorized``.
        entity: Team or user that owns the project. Defaults to None: the environment, or the default entity of the
            account.
        run_name: Display name of the run. Defaults to None: the environment, or the name of the run.

    Raises:
        TypeError: If an option is not a string.

    Example:
        >>> from pte_backends.wandb import WandbSink
        >>> WandbSink(project="digits").project
        'digits'
    """

    name: ClassVar[str] = "wandb"
    requires: ClassVar[str | None] = "wandb"
    install: ClassVar[str] = "pip install 'pte-tracking[wandb]'"
    files: ClassVar[tuple[str, ...]] = ("wandb",)
    # A key of the history has one kind of value.
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
        "model": "native",
        "status": "native",
    }

    project: str | None = None
    entity: str | None = None
    run_name: str | None = None

    def __post_init__(self) -> None:
        check_texts(self, "project", "entity", "run_name")

    def resolve(self) -> WandbSink:
        """Resolve project, entity, and run name from the environment.

        Returns:
            A sink with the project set.
        """
        return dataclasses.replace(
            self,
            project=self.project or os.environ.get("WANDB_PROJECT") or "uncategorized",
            entity=self.entity or os.environ.get("WANDB_ENTITY"),
            run_name=self.run_name or os.environ.get("WANDB_NAME"),
        )

    @property
    def destination(self) -> object:
        """Nothing, because a run directory contains one W&B run. Other options rewrite its file."""
        return ()

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Truncate the file to its saved size.

        Events after the saved position are delivered again.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.
        """
        # The import of the client library takes tens of megabytes.
        from pte_backends.wandb._connection import WandbConnection

        sink = self.resolve()
        return WandbConnection(sink.project or "", sink.entity, sink.run_name, run, state)
