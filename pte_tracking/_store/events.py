"""Every kind of event in the record of a run, and its form on disk.

An event is one line of plain JSON with its kind under ``"kind"``. JSON has no NaN and no infinities: among the
values of a row they stand as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, and come back as floats.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, TypeAlias

import msgspec

Number: TypeAlias = int | float
Scalar: TypeAlias = str | int | float | bool | None
Status: TypeAlias = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

#: A whole number of 64 bits.
_Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

#: A number as it stands on disk: non-finite ones are strings there.
_StoredNumber: TypeAlias = _Int64 | float | str

#: A path that stays in the run's directory, wherever the journal came from.
_RelativePath: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(?!/)(?!(.*/)?\.\.(/|\Z))[^\0]+\Z")]


def _kind(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag=_kind):
    """What all kinds of events share.

    Attributes:
        seq: 1, 2, 3 ... without gaps over the whole journal.
        time: Seconds since the epoch when it happened. It never changes afterwards, so delivering an event a second
            time gives a backend the very same point.
    """

    seq: _Int64
    time: float


class RunStarted(Event, frozen=True):
    """A process took the run up: the first one, or one that resumed it."""

    run_id: str
    name: str
    pid: int
    host: str
    resumed: bool = False


class Params(Event, frozen=True):
    """Hyperparameters, already flattened: ``{"optim": {"lr": 1}}`` is ``{"optim/lr": 1}`` here."""

    values: dict[str, Scalar]


class Tags(Event, frozen=True):
    """Labels of the run; a later value replaces an earlier one."""

    values: dict[str, str]


class Metrics(Event, frozen=True):
    """Numbers measured at one step.

    Attributes:
        step: Iterations done when they were reported.
        values: The numbers by key.
        epoch: Epochs done, if the loop knows epochs.
        elapsed_time: Seconds of training up to here, earlier sessions of the run included.
        log: File name of the JSON log that the row belongs to.
        sinks: Names of the sinks that get the row; None for all.
    """

    step: _Int64
    values: dict[str, _StoredNumber]
    epoch: Number | None = None
    elapsed_time: float | None = None
    log: _RelativePath = "log"
    sinks: list[str] | None = None


class Figure(Event, frozen=True):
    """A drawn figure, as a PNG file in the run's directory; a later one of the same key and step replaces it."""

    key: str
    step: _Int64
    path: _RelativePath


class Image(Event, frozen=True):
    """A picture, as a PNG file in the run's directory."""

    key: str
    step: _Int64
    path: _RelativePath


class Histogram(Event, frozen=True):
    """A distribution of finite values.

    Attributes:
        edges: The bins' borders, ascending; one more than ``counts``.
        counts: How many values fell into each bin.
        min: The smallest value.
        max: The largest value.
        sum: Sum of all values.
        sum_squares: Sum of all squared values.
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
    """A piece of text (Markdown where a backend renders it)."""

    key: str
    step: _Int64
    text: str


class Dataset(Event, frozen=True):
    """Data that the run uses: told apart by their digest, and not copied.

    Attributes:
        name: What they are called.
        digest: Which version of them, such as a SHA-256 in hexadecimal.
        context: What they are used for, such as ``"train"``.
        source: The path or URI that they come from, ``""`` if that is not told.
    """

    name: str
    digest: str
    context: str
    source: str = ""


class Artifact(Event, frozen=True):
    """A file or folder that belongs to the run.

    Attributes:
        path: Where it lies, relative to the run's directory.
        artifact_path: Folder that it is shown in by backends, ``""`` for the top.
    """

    path: _RelativePath
    artifact_path: str = ""


class Checkpoint(Event, frozen=True):
    """A snapshot was published: written whole, checked and durable.

    Attributes:
        path: The file, relative to the run's directory.
        step: Iterations done in it.
        sha256: Its digest in hexadecimal.
        size: Its size in bytes.
        epoch: Epochs done in it.
        values: The latest reported values at its step.
    """

    path: _RelativePath
    step: _Int64
    sha256: str
    size: int
    epoch: Number | None = None
    values: dict[str, _StoredNumber] = {}


class CheckpointRemoved(Event, frozen=True):
    """A snapshot was pruned, and is to vanish from every backend."""

    path: _RelativePath
    step: _Int64


class Rewound(Event, frozen=True):
    """The run goes on from an earlier point: all events after ``to_seq`` up to this one are taken back.

    Attributes:
        to_seq: The last event that still holds.
        to_position: Where that event ends in the journal, in bytes.
        step: Iterations done at that point.
    """

    to_seq: _Int64
    to_position: _Int64
    step: _Int64


class RunEnded(Event, frozen=True):
    """The training process ended its work on the run."""

    status: Status
    error: str | None = None


AnyEvent: TypeAlias = (
    RunStarted
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
    | Rewound
    | RunEnded
)

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    """One line of JSON, its newline included."""
    line = _encode(event)
    # msgspec writes non-finite numbers as null: a null is rare, and worth a second look.
    if line.find(b"null") >= 0 and isinstance(event, Metrics | Checkpoint):
        encoded = {key: _encode_number(value) for key, value in event.values.items()}
        line = _encode(msgspec.structs.replace(event, values=encoded))
    return line + b"\n"


def decode(line: bytes) -> AnyEvent:
    """The event of one line.

    Raises:
        msgspec.DecodeError: The line is not JSON, or not an event that this version knows.
        ValueError: Nor is it for another reason.
    """
    try:
        event: AnyEvent = _decoder.decode(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(event, Metrics | Checkpoint) and str in map(type, event.values.values()):
        numbers = {key: float(value) if type(value) is str else value for key, value in event.values.items()}
        return msgspec.structs.replace(event, values=numbers)
    return event


def _encode_number(value: _StoredNumber) -> _StoredNumber:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
