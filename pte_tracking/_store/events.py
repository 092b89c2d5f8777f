"""Events of the journal.

An event is one line of JSON. The field ``"kind"`` contains the snake-case name of the class.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

import msgspec

Number: TypeAlias = int | float
Scalar: TypeAlias = str | int | float | bool | None
Status: TypeAlias = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

#: Signed 64-bit integer.
_Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

#: Number as stored in the journal. Non-finite numbers are strings.
StoredNumber: TypeAlias = _Int64 | float | str

#: Path relative to the run directory. The pattern keeps paths of a foreign journal within that directory.
_RelativePath: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(?!/)(?!(.*/)?\.\.(/|\Z))[^\0]+\Z")]

#: Directory in which backends show an artifact. Empty for the top level.
_SubdirectoryPath: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(?!/)(?!(.*/)?\.\.(/|\Z))[^\0]*\Z")]


def _kind(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag=_kind):
    """Base class of all events.

    Attributes:
        seq: Sequence number in the journal: 1, 2, 3, ... without gaps. Samples of system metrics, which are not in the
            journal, have negative numbers.
        time: Time of the event in seconds since the Unix epoch. The time never changes, so a redelivered event yields
            an identical data point.
    """

    seq: _Int64
    time: float


class RunStarted(Event, frozen=True):
    """A training process started or resumed the run.

    Attributes:
        run_id: ID of the run: 32 hexadecimal digits.
        name: Display name of the run.
        pid: Process ID of the training process.
        host: Host name of the training process.
        resumed: Whether the journal contained events before this one.
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
    files: dict[str, _RelativePath] = {}


class Params(Event, frozen=True):
    """Parameters were logged.

    Attributes:
        values: Parameters by name. Nested names are joined with ``/``, so ``{"optim": {"lr": 1}}`` is stored as
            ``{"optim/lr": 1}``.
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
        values: Numbers by key.
        epoch: Number of completed epochs. None if the epoch length is not set.
        elapsed_time: Training time in seconds, including earlier sessions of the run. None if it was not logged.
        log: File name of the JSON log that contains the row. None for data points that belong to no row.
        sinks: Names of the sinks that receive the row. None means all sinks.
        measured: Keys of ``values`` whose data points are events of their own, so that sinks with data points skip them
            in this row. None means no keys.
        explicit: Whether the values were logged by a call of ``log_metrics``, and not by a LogReport. All such values
            are delivered. Of several LogReports, only the first value of a key and step is delivered.
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
        """Values that are data points of this event."""
        measured = self.measured
        return {key: value for key, value in self.values.items() if key not in measured} if measured else self.values


class Figure(Event, frozen=True):
    """A figure was logged. A later figure with the same key and step replaces it.

    Attributes:
        key: Name of the figure.
        step: Number of completed iterations.
        path: PNG file, relative to the run directory.
    """

    key: str
    step: _Int64
    path: _RelativePath


class Image(Event, frozen=True):
    """An image was logged.

    Attributes:
        key: Name of the image.
        step: Number of completed iterations.
        path: PNG file, relative to the run directory.
    """

    key: str
    step: _Int64
    path: _RelativePath


class Histogram(Event, frozen=True):
    """Distribution of finite values.

    Attributes:
        key: Name of the histogram.
        step: Number of completed iterations.
        edges: Bin edges in ascending order. There is one more edge than there are bins.
        counts: Number of values in each bin.
        min: Smallest value.
        max: Largest value.
        sum: Sum of the values.
        sum_squares: Sum of the squared values.
    """

    key: str
    step: _Int64
    edges: list[float]
    counts: list[float]
    min: float
    max: float
    sum: float
    sum_squares: float


class Text(Event, frozen=True):
    """A text was logged.

    Attributes:
        key: Name of the text.
        step: Number of completed iterations.
        text: The text. Backends that support Markdown render it.
    """

    key: str
    step: _Int64
    text: str


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
    values: dict[str, StoredNumber] = {}


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
    | Dataset
    | Artifact
    | Checkpoint
    | CheckpointRemoved
    | FirstBatch
    | Rewound
    | RunEnded
)
