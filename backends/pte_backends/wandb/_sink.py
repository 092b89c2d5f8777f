"""The Weights & Biases sink: what a user configures."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pte_tracking.sinks import Connection, Limits, RunView, Sink


@dataclasses.dataclass(frozen=True)
class WandbSink(Sink):
    """Leaves ``wandb/offline-run-*/`` in the run's directory, as Weights & Biases does in offline mode.

    ``wandb sync`` sends it. Nothing is sent by this sink, no account is asked for, and no process is started. What is
    not given is taken from ``WANDB_PROJECT``, ``WANDB_ENTITY`` and ``WANDB_NAME``, as Weights & Biases does.

    Args:
        project: The project.
        entity: The team or user that it belongs to.
        run_name: The run's name there; the run's own name by default.
    """

    name: ClassVar[str] = "wandb"
    requires: ClassVar[str | None] = "wandb"
    install: ClassVar[str] = "pip install 'pte-tracking[wandb]'"
    files: ClassVar[tuple[str, ...]] = ("wandb",)
    limits: ClassVar[Limits] = Limits(batch_values=10_000)

    project: str | None = None
    entity: str | None = None
    run_name: str | None = None

    def __post_init__(self) -> None:
        for field in ("project", "entity", "run_name"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{field}: expected a string, got {value!r} of type {type(value).__name__}")

    def resolve(self) -> WandbSink:
        """Fix project, team and name."""
        return dataclasses.replace(
            self,
            project=self.project or os.environ.get("WANDB_PROJECT") or "uncategorized",
            entity=self.entity or os.environ.get("WANDB_ENTITY"),
            run_name=self.run_name or os.environ.get("WANDB_NAME"),
        )

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Cut the file to what the state knows of: what came after is delivered again."""
        # Importing the product takes tens of megabytes.
        from pte_backends.wandb._connection import WandbConnection

        sink = self.resolve()
        return WandbConnection(sink.project or "", sink.entity, sink.run_name, run, state)
