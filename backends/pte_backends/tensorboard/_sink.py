"""TensorBoard sink."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pte_tracking.sinks import AnyEvent, Connection, Display, EventKind, Limits, Location, RunView, Sink

_OWN_TAGS = frozenset(
    {
        "_hparams_/experiment",
        "_hparams_/session_start_info",
        "_hparams_/session_end_info",
        "custom_scalars__config__",
    }
)


@dataclasses.dataclass(frozen=True)
class TensorBoardSink(Sink):
    """Sink that writes a TensorBoard event file to the run directory.

    Pass the parent directory to ``tensorboard --logdir``. TensorBoard shows scalars with ``epoch``, figures, images,
    histograms, texts, the hyperparameters and status of the run on the HPARAMS page, and training and validation
    metrics of the same name in one chart on the Custom Scalars page. Sounds are played if they are WAV files, videos if
    they are GIF files, and tables are texts of at most 100 rows. Tags, pages, artifacts and checkpoints are skipped.
    Metrics are stored as 32-bit floats. The HPARAMS page leaves out parameters that are None, NaN or infinite, so
    it can compare the numbers of other runs, and shows integers above 2^53 as texts with all digits.

    Superseded events disappear, even from a running TensorBoard. A running TensorBoard does not show two changes until
    it is restarted: hyperparameters that are added or changed later, and the status of a run that ended before. If
    ``--logdir`` is the run directory itself, the HPARAMS page shows no metrics.

    Example:
        >>> from pte_backends.tensorboard import TensorBoardSink
        >>> TensorBoardSink()
        TensorBoardSink()
    """

    name: ClassVar[str] = "tensorboard"
    requires: ClassVar[str | None] = "tensorboard"
    install: ClassVar[str] = "pip install 'pte-tracking[tensorboard]'"
    files: ClassVar[tuple[str, ...]] = ("events.out.tfevents.*", ".tensorboard.*.tmp")
    sources: ClassVar[tuple[str, ...]] = ("*tfevents*",)
    # TensorBoard shows no values of a tag that has several kinds of values.
    limits: ClassVar[Limits] = Limits(
        batch_values=100_000,
        shared_names=("metric", "figure", "image", "histogram", "text", "table", "audio", "video", "dataset"),
        reserved_names=_OWN_TAGS,
    )
    shows: ClassVar[Mapping[EventKind, Display] | None] = {
        "metrics": "native",
        "params": "native",
        "figure": "native",
        "image": "native",
        "histogram": "native",
        "text": "native",
        "table": "artifact",
        "audio": "native",
        "video": "native",
        "dataset": "artifact",
        "status": "native",
    }

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location | None:
        """Return the command that opens the run.

        Args:
            directory: Absolute path of the run directory.
            state: Last saved state of a connection.

        Returns:
            The command.
        """
        return Location(command=f"tensorboard --logdir {shlex.quote(str(directory.parent))}")

    @classmethod
    def read_run(cls, source: str, directory: Path) -> Iterable[AnyEvent]:
        """Read the event files of one run.

        Scalars, images, histograms, texts, hyperparameters, and the status on the HPARAMS page are read. Values that a
        restart with ``purge_step`` superseded are left out, as in TensorBoard.

        Args:
            source: Event file, or directory that contains event files.
            directory: Directory for images.

        Returns:
            The events, in the order of the files.

        Raises:
            LookupError: If the source does not exist, or contains no event file.
            ValueError: If a file is not an event file.
            OSError: If a file cannot be read.
        """
        from pte_backends.tensorboard import _reader

        return _reader.read_run(source, directory)

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Continue the event file of the run, or create one.

        A missing or truncated file is rebuilt from the journal.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.
        """
        # The import of TensorBoard takes 0.2 s and 25 MB.
        from pte_backends.tensorboard._connection import TensorBoardConnection

        return TensorBoardConnection(run, state)
