"""Events of the journal.

An event is one line of JSON. The field ``"kind"`` contains the snake-case name of the class.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from pte_tracking._store.event_base import Event as Event
from pte_tracking._store.event_base import Int64 as _Int64
from pte_tracking._store.event_base import Number as Number
from pte_tracking._store.event_base import RelativePath as _RelativePath
from pte_tracking._store.event_base import Scalar as Scalar
from pte_tracking._store.event_base import Status as Status
from pte_tracking._store.event_base import StoredNumber as StoredNumber
from pte_tracking._store.event_base import SubdirectoryPath as _SubdirectoryPath
from pte_tracking._store.media_events import Audio as Audio
from pte_tracking._store.media_events import Figure as Figure
from pte_tracking._store.media_events import Histogram as Histogram
from pte_tracking._store.media_events import Html as Html
from pte_tracking._store.media_events import Image as Image
from pte_tracking._store.media_events import MediaFile as MediaFile
from pte_tracking._store.media_events import Table as Table
from pte_tracking._store.media_events import Text as Text
from pte_tracking._store.media_events import Video as Video
from pte_tracking._store.model_event import Model as Model


class RunStarted(Event, frozen=True):
    """A training process started or resumed the run.

    Attributes:
        run_id: ID of the run: 32 hexadecimal digits.
        name: Display name of the run.
        pid: Process ID of the training process.
        host: Host name of the training process.
        resumed: Whether the journal contained events before this one.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking import sinks
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, name="digits") as run:
        ...         run.log_metrics({"loss": 0.5}, 1)
        ...     for event, position in sinks.find_events(run.directory / sinks.JOURNAL, sinks.RunStarted):
        ...         print(event.name, event.resumed)
        digits False
    """

    run_id: str
    name: str
    pid: int
    host: str
    resumed: bool = False


class Provenance(Event, frozen=True):
    """Origin of the current session of the run, known shortly after its start.

    The files are artifacts of the run as well.

    Attributes:
        values: Facts by name, such as ``git_commit``, ``python``, or ``slurm_job_id``. Unknown ones are missing.
        files: Files relative to the run directory, by name: ``diff.txt``, ``untracked.txt``, ``requirements.txt``.
    """

    values: dict[str, str]
    files: dict[str, _RelativePath] = msgspec.field(default_factory=dict)


class Params(Event, frozen=True):
    """Parameters were logged.

    Attributes:
        values: Parameters by name. Nested names are joined with ``/``, so ``{"optim": {"lr": 1}}`` is stored as
            ``{"optim/lr": 1}``.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking import sinks
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, params={"optim": {"lr": 0.1}}, tags={"team": "vision"}) as run:
        ...         run.log_metrics({"loss": 0.5}, 1)
        ...     for event, position in sinks.read_effective(run.directory / sinks.JOURNAL):
        ...         if isinstance(event, sinks.Params | sinks.Tags):
        ...             print(type(event).__name__, event.values)
        Params {'optim/lr': 0.1}
        Tags {'team': 'vision'}
    """

    values: dict[str, Scalar]


class Tags(Event, frozen=True):
    """Tags were set.

    Attributes:
        values: Tags by name. A later value replaces an earlier one.
    """

    values: dict[str, str]


class Metrics(Event, frozen=True):
    """Row of metrics at one step, or data points that belong to no row.

    A value that is measured within the interval of a row is a data point at its own step. The row contains the mean
    over the interval as well, for the JSON log only.

    Attributes:
        step: Number of completed iterations.
        values: Numbers by key. Sinks receive only ``int`` and ``float``, including NaN and infinities. The type
            contains ``str`` because the journal stores non-finite numbers as strings.
        epoch: Number of completed epochs. None if the epoch length is not set.
        elapsed_time: Training time in seconds, including earlier sessions of the run. None if it was not logged.
        log: File name of the JSON log that contains the row. None for data points that belong to no row.
        sinks: Names of the sinks that receive the row. None means all sinks.
        measured: Keys of ``values`` whose data points are events of their own, so sinks with data points skip them
            in this row. None means no keys.
        explicit: Whether the values were logged by a call of ``log_metrics``, and not by a LogReport. All such values
            are delivered. Of several LogReports, only the first value of a key and step is delivered.

    Example:
        A test of a backend constructs events and passes them to the connection:

        >>> from pte_tracking.sinks import Metrics
        >>> event = Metrics(seq=1, time=0.0, step=100, values={"loss": 0.5, "val/loss": 0.7}, measured=["val/loss"])
        >>> event.points
        {'loss': 0.5}
    """

    step: _Int64
    values: dict[str, StoredNumber]
    epoch: Number | None = None
    elapsed_time: float | None = None
    log: _RelativePath | None = "log"
    sinks: list[str] | None = None
    measured: list[str] | None = None
    explicit: bool = False

    @property
    def points(self) -> dict[str, StoredNumber]:
        """Values that are data points of this event, in a journal.

        A sink receives events whose ``values`` are the data points, unless its ``Limits.separate_logs`` is True.
        """
        measured = self.measured
        return {key: value for key, value in self.values.items() if key not in measured} if measured else self.values


class Dataset(Event, frozen=True):
    """A dataset was logged. Its content is not copied.

    Attributes:
        name: Name of the dataset.
        digest: Digest that identifies the version of the dataset, such as a hexadecimal SHA-256.
        context: Purpose, such as ``"train"``.
        source: Path or URI of the dataset. Empty if it was not logged.
    """

    name: str
    digest: str
    context: str
    source: str = ""


class Artifact(Event, frozen=True):
    """A file or directory was logged.

    Attributes:
        path: File or directory, relative to the run directory.
        artifact_path: Directory in which backends show the artifact. Empty for the top level.

    Example:
        >>> import pathlib, tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking import sinks
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     config = pathlib.Path(directory, "config.toml")
        ...     _ = config.write_text("lr = 0.1")
        ...     with pte.Run(pathlib.Path(directory, "run")) as run:
        ...         run.log_artifact(config, "settings")
        ...     for event, position in sinks.find_events(run.directory / sinks.JOURNAL, sinks.Artifact):
        ...         print(event.path, event.artifact_path, (run.directory / event.path).read_text())
        artifacts/settings/config.toml settings lr = 0.1
    """

    path: _RelativePath
    artifact_path: _SubdirectoryPath = ""


class Checkpoint(Event, frozen=True):
    """Snapshot registered in the run after it was written durably.

    Attributes:
        path: Snapshot file or directory, relative to the run directory.
        step: Number of completed iterations.
        sha256: Hexadecimal SHA-256 of the file. For a sharded snapshot, the SHA-256 of its index.
        size: Size in bytes.
        epoch: Number of completed epochs. None if the epoch length is not set.
        values: Latest reported values at ``step``.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(1, 1)
        >>> snapshot = extensions.snapshot(trigger=(1, "iteration"))
        >>> with pte.ExtensionsManager(model, 1, [snapshot], iters_per_epoch=2, sinks=[]) as manager:
        ...     for _ in range(2):
        ...         with manager.run_iteration():
        ...             pass
        >>> [(checkpoint.path, checkpoint.step) for checkpoint in manager.run.checkpoints()]
        [('snapshot_iter_1', 1), ('snapshot_iter_2', 2)]
    """

    path: _RelativePath
    step: _Int64
    sha256: str
    size: int
    epoch: Number | None = None
    values: dict[str, StoredNumber] = msgspec.field(default_factory=dict)


class CheckpointRemoved(Event, frozen=True):
    """A snapshot was pruned. Backends delete it.

    Attributes:
        path: Snapshot file or directory, relative to the run directory.
        step: Number of completed iterations.
    """

    path: _RelativePath
    step: _Int64


class FirstBatch(Event, frozen=True):
    """A loader delivered its first batch after a snapshot, by which a resume from this snapshot checks the data.

    No sink receives the event.

    Attributes:
        step: Number of completed iterations.
        loader: Name of the loader.
        parts: Type and checksum of each part of the batch by its path, such as ``"['image']"``. The type includes the
            data type and the shape. The checksum is None if the content was not read.
    """

    step: _Int64
    loader: str
    parts: dict[str, tuple[str, int | None]]

    @property
    def sinks(self) -> list[str]:
        """Names of the sinks that receive the event: none."""
        return []


class Rewound(Event, frozen=True):
    """The run was rewound. Events after ``to_seq`` and before this one are superseded.

    Attributes:
        to_seq: Sequence number of the last event that is not superseded.
        to_position: Byte offset in the journal at which that event ends.
        step: Number of completed iterations at that event.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking import sinks
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory) as run:
        ...         run.log_metrics({"loss": 0.5}, 1)
        ...         run.log_metrics({"loss": 0.4}, 2)
        ...     with pte.Run(directory, resume=True) as run:
        ...         run.resume_at(1)
        ...         run.log_metrics({"loss": 0.3}, 2)
        ...     path = run.directory / sinks.JOURNAL
        ...     print([event.step for event, position in sinks.find_events(path, sinks.Rewound)])
        ...     print([event.values for event, position in sinks.find_events(path, sinks.Metrics)])
        ...     history = [event for event, position in sinks.read_effective(path)]
        ...     print([event.values for event in history if isinstance(event, sinks.Metrics)])
        [1]
        [{'loss': 0.5}, {'loss': 0.4}, {'loss': 0.3}]
        [{'loss': 0.5}, {'loss': 0.3}]
    """

    to_seq: _Int64
    to_position: _Int64
    step: _Int64


class RunEnded(Event, frozen=True):
    """The training process ended the run.

    Attributes:
        status: Status at the end: ``"FINISHED"``, ``"FAILED"``, or ``"KILLED"``.
        error: Error message. None if the run finished.
    """

    status: Status
    error: str | None = None


AnyEvent: TypeAlias = (
    RunStarted
    | Provenance
    | Params
    | Tags
    | Metrics
    | Figure
    | Image
    | Histogram
    | Text
    | Table
    | Html
    | Audio
    | Video
    | Dataset
    | Artifact
    | Checkpoint
    | CheckpointRemoved
    | Model
    | FirstBatch
    | Rewound
    | RunEnded
)
