"""Conversion of events to SwanLab records, the protobuf messages of the client library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp
from swanlab.proto.swanlab.metric.column.v1 import column_pb2
from swanlab.proto.swanlab.metric.data.v1 import data_pb2
from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.proto.swanlab.run.v1 import run_pb2
from swanlab.proto.swanlab.save.v1 import save_pb2

from pte_backends._files import find_file
from pte_backends._provenance import read_provenance_file
from pte_tracking.sinks import (
    AnyEvent,
    Artifact,
    Audio,
    Dataset,
    Figure,
    Histogram,
    Html,
    Image,
    MediaFile,
    Metrics,
    Params,
    Provenance,
    RejectedEventError,
    RunView,
    Status,
    Tags,
    Text,
    Video,
    list_owned_files,
    to_artifact,
)

#: Numbers of the records that a file contains once, or whose last one is valid. Other records count from 1.
_START, _FINISH, _CONFIG, _METADATA, _REQUIREMENTS = -1, -2, -3, -4, -5
_MAX_STEP = 1 << 48  # ``swanlab sync`` skips larger steps
#: Columns of files. The client library uses the column of images for videos until the server supports theirs.
_COLUMN_TYPES: dict[type[MediaFile], int] = {
    Figure: column_pb2.COLUMN_TYPE_IMAGE,
    Image: column_pb2.COLUMN_TYPE_IMAGE,
    Html: column_pb2.COLUMN_TYPE_HTML,
    Audio: column_pb2.COLUMN_TYPE_AUDIO,
    Video: column_pb2.COLUMN_TYPE_IMAGE,
}
_STATES = {
    "FINISHED": run_pb2.RUN_STATE_FINISHED,
    "FAILED": run_pb2.RUN_STATE_CRASHED,
    "KILLED": run_pb2.RUN_STATE_ABORTED,
}


def build_start(run: RunView, project: str, workspace: str | None, name: str) -> Record:
    """Build the first record of a file.

    Args:
        run: Run to deliver.
        project: Name of the project.
        workspace: User or organization that owns the project; None for the default.
        name: Display name of the run.

    Returns:
        The record.
    """
    time = to_timestamp(run.start_time)
    start = run_pb2.StartRecord(
        project=project, workspace=workspace, name=name[:512], id=run.id, resume=run_pb2.RESUME_MODE_ALLOW
    )
    start.started_at.CopyFrom(time)
    start.group = run.context.get("group", "")
    return Record(num=_START, timestamp=time, start=start)


def build_finish(status: Status, error: str | None, time: float) -> Record:
    """Build the last record of a file.

    Args:
        status: Final status of the run.
        error: Error message of the training, if known.
        time: Time of the end, in seconds since the epoch.

    Returns:
        The record.
    """
    finish = run_pb2.FinishRecord(state=_STATES[status], finished_at=to_timestamp(time))
    if status != "FINISHED":
        finish.error = error or f"The status of the run is {status}."
    return Record(num=_FINISH, timestamp=to_timestamp(time), finish=finish)


def build_config(config: Mapping[str, Any], time: float) -> Record:
    """Build the record of the complete configuration, which replaces an earlier one.

    Args:
        config: Values by key.
        time: Time of the event, in seconds since the epoch.

    Returns:
        The record.
    """
    items = {key: {"desc": "", "sort": index, "value": value} for index, (key, value) in enumerate(config.items())}
    # SwanLab reads YAML, of which this JSON is a subset.
    payload = msgspec.json.encode(items)
    save = save_pb2.SaveRecord(name="config", type=save_pb2.SAVE_TYPE_CONFIG, payload=payload)
    return Record(num=_CONFIG, timestamp=to_timestamp(time), save=save)


def build_provenance(event: Provenance, run: RunView) -> Iterator[Record]:
    """Build the records of the origin of a session, which replace those of an earlier one.

    Args:
        event: Origin of the session.
        run: Run to deliver.

    Yields:
        The records.
    """
    facts = event.values
    git = {"remote_url": facts.get("git_remote"), "branch": facts.get("git_branch"), "commit": facts.get("git_commit")}
    names = {"os": "os", "hostname": "host", "cwd": "directory", "python_version": "python", "command": "command"}
    runtime = {name: facts.get(key) for name, key in names.items()}
    metadata = msgspec.json.encode({"_version": 2, "runtime": runtime, "git": git if git["commit"] else None})
    saves = [("metadata", save_pb2.SAVE_TYPE_METADATA, metadata, _METADATA)]
    if packages := read_provenance_file(event, run, "requirements.txt"):
        saves.append(("requirements", save_pb2.SAVE_TYPE_REQUIREMENTS, packages.encode(), _REQUIREMENTS))
    for name, kind, payload, number in saves:
        save = save_pb2.SaveRecord(name=name, type=kind, payload=payload)
        yield Record(num=number, timestamp=to_timestamp(event.time), save=save)


def read_config(event: AnyEvent) -> dict[str, Any]:
    """Return the part of the configuration that an event changes. Empty if it changes none."""
    if isinstance(event, Params):
        return dict(event.values)
    if isinstance(event, Tags):
        return {f"tags/{key}": value for key, value in event.values.items()}
    if isinstance(event, Provenance):
        return {f"provenance/{key}": value for key, value in event.values.items()}
    if isinstance(event, Dataset):
        return {f"datasets/{event.context}/{event.name}": {"digest": event.digest, "source": event.source}}
    return {}


def build_records(event: AnyEvent, run: RunView) -> Iterator[Record]:
    """Build the records of one event, without numbers.

    Args:
        event: Event to convert.
        run: Run to deliver.

    Yields:
        The records. None if SwanLab cannot show the event.

    Raises:
        RejectedEventError: If a file of the run is missing, or SwanLab does not accept the step.
    """
    time = to_timestamp(event.time)
    # SwanLab plays WAV and GIF files only.
    if (isinstance(event, Audio) and not event.path.endswith(".wav")) or (
        isinstance(event, Video) and not event.path.endswith(".gif")
    ):
        event = to_artifact(event)
    if isinstance(event, Metrics):
        _check_step(event.seq, event.step)
        for key, number in event.values.items():
            value = data_pb2.ScalarValue(number=number)
            scalar = data_pb2.ScalarRecord(
                key=key, step=event.step, type=column_pb2.COLUMN_TYPE_SCALAR, timestamp=time, value=value
            )
            yield Record(timestamp=time, scalar=scalar)
    elif isinstance(event, Artifact):
        path = find_file(event, run)
        for file in list_owned_files(run.directory, path)[0]:
            name = Path("artifacts", event.artifact_path, file.relative_to(path.parent)).as_posix()
            yield Record(timestamp=time, save=save_pb2.SaveRecord(name=name, source_path=str(file)))
    elif isinstance(event, MediaFile) and type(event) in _COLUMN_TYPES:
        path = find_file(event, run)
        kind, suffix = _COLUMN_TYPES[type(event)], path.suffix.removeprefix(".")
        yield _build_media(event, kind, suffix, path.read_bytes(), event.caption)
    elif isinstance(event, Text):
        yield _build_media(event, column_pb2.COLUMN_TYPE_TEXT, "txt", event.text.encode())
    elif isinstance(event, Histogram):
        yield _build_media(event, column_pb2.COLUMN_TYPE_ECHARTS, "json", _draw_bars(event))


def to_timestamp(seconds: float) -> Timestamp:
    """Convert seconds since the epoch to a protobuf message."""
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(seconds * 1e6))
    return timestamp


def _build_media(event: MediaFile | Text | Histogram, kind: int, suffix: str, data: bytes, caption: str = "") -> Record:
    _check_step(event.seq, event.step)
    digest, time = hashlib.sha256(data).hexdigest(), to_timestamp(event.time)
    # The record contains the file, so the run consists of one file, which a rewind truncates.
    item = data_pb2.MediaItem(
        filename=f"{event.step:03d}-{digest[:8]}.{suffix}", sha256=digest, size=len(data), payload=data, caption=caption
    )
    value = data_pb2.MediaValue(items=[item])
    media = data_pb2.MediaRecord(key=event.key, step=event.step, type=kind, timestamp=time, value=value)
    return Record(timestamp=time, media=media)


def _draw_bars(event: Histogram) -> bytes:
    """Return the ECharts options of a bar chart."""
    centers = [f"{(left + right) / 2:.4g}" for left, right in zip(event.edges, event.edges[1:], strict=False)]
    options = {
        "xAxis": [{"type": "category", "data": centers}],
        "yAxis": [{"type": "value"}],
        "series": [{"type": "bar", "name": event.key, "data": event.counts, "barCategoryGap": "0%"}],
        "tooltip": {"trigger": "axis"},
    }
    return json.dumps(options).encode()


def _check_step(seq: int, step: int) -> None:
    if not 0 <= step <= _MAX_STEP:
        raise RejectedEventError(seq, f"SwanLab accepts steps from 0 to {_MAX_STEP}, got {step}.")
