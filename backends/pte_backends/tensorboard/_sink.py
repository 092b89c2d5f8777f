"""The TensorBoard sink: what a user configures, and how it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from pte_tracking.sinks import Connection, Limits, RunView, Sink


@dataclasses.dataclass(frozen=True)
class TensorBoardSink(Sink):
    """Writes an event file into the run's directory; ``tensorboard --logdir`` on the folder above shows the run.

    Shown are scalars (with ``epoch`` beside them), figures, images, histograms, texts, the hyperparameters and
    the run's status on the HPARAMS page, and on the Custom Scalars page the metrics of the same name but for
    ``train``, ``val`` and the like in one chart. Tags, artifacts and checkpoints have no place in TensorBoard
    and are skipped. It keeps numbers as 32-bit floats.

    What is taken back vanishes, also from a TensorBoard that is running. Two things such a one does not notice,
    since it looks at them once only: hyperparameters that are added or changed later, and the status of a run
    that ended before. Start it anew to see them. Given the run's directory itself, its HPARAMS page finds no values of
    metrics.
    """

    name: ClassVar[str] = "tensorboard"
    requires: ClassVar[str | None] = "tensorboard"
    install: ClassVar[str] = "pip install 'pte-tracking[tensorboard]'"
    files: ClassVar[tuple[str, ...]] = ("events.out.tfevents.*", ".tensorboard.*.tmp")
    limits: ClassVar[Limits] = Limits(batch_values=100_000)

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Go on with the run's event file, or begin one; a file that is missing or was cut short is made again."""
        # TensorBoard takes 0.2 s and 25 MB to import.
        from pte_backends.tensorboard._connection import TensorBoardConnection

        return TensorBoardConnection(run, state)
