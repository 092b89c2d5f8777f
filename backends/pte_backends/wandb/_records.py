"""Conversion of events to W&B records: protobuf messages with JSON values.

W&B steps never decrease, and each step has one row. Rows therefore have a separate number, and the training step is the
metric ``iteration``, which all charts use as x-axis (``define_metric("*", step_metric="iteration")``).
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import shutil
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

from pte_backends._files import find_file
from pte_backends.wandb import _provenance
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
    RejectedEventError,
    RunView,
    Status,
    Table,
    Tags,
    Text,
    Video,
    list_owned_files,
    make_owned_directory,
    read_table,
    safe_file_name,
)

STEP_KEY = "iteration"
#: Subdirectory of the media of each kind, as the client library names it.
_FOLDERS: dict[type[MediaFile], str] = {
    Figure: "images",
    Image: "images",
    Table: "table",
    Html: "html",
    Audio: "audio",
    Video: "videos",
}
_EXIT_CODES = {"FINISHED": 0, "FAILED": 1, "KILLED": 255}


def build_header(run: RunView, project: str, entity: str | None, name: str) -> list[pb.Record]:
    """Build the first records of a file.

    Args:
        run: Run to deliver.
        project: Project name.
        entity: Team or user that owns the project; None for the default.
        name: Display name of the run.

    Returns:
        The records.
    """
    from wandb import __version__

    header_record = pb.Record()
    header_record.header.version_info.producer = __version__
    run_record = _provenance.build_run(run, project, entity, name, run.context)
    metric_record = pb.Record()
    metric_record.metric.glob_name, metric_record.metric.step_metric = "*", STEP_KEY
    metric_record.metric.options.step_sync, metric_record.metric.options.defined = True, True
    return [header_record, run_record, metric_record]


def build_footer(summary: Mapping[str, float], status: Status, seconds: float) -> list[pb.Record]:
    """Build the last records of a file.

    Args:
        summary: Last value of each metric.
        status: Final status of the run.
        seconds: Duration of the run.

    Returns:
        The records.
    """
    summary_record = pb.Record()
    for key, value in summary.items():
        summary_record.summary.update.add(nested_key=[key], value_json=json.dumps(value))
    exit_record = pb.Record()
    exit_record.exit.exit_code, exit_record.exit.runtime = _EXIT_CODES[status], int(seconds)
    return [summary_record, exit_record]


def build_records(event: AnyEvent, row_number: int, run: RunView, files: Path) -> list[pb.Record]:
    """Build the records of one event.

    Args:
        event: Event to convert.
        row_number: Number of the next row.
        run: Run to deliver.
        files: Directory for media files.

    Returns:
        The records. Empty if W&B cannot show the event.

    Raises:
        RejectedEventError: If a file of the run is missing.
    """
    try:
        if isinstance(event, Metrics):
            return [_build_row(event, row_number, run, event.values.items(), event.step)]
        if isinstance(event, Histogram):
            value = {"_type": "histogram", "values": event.counts, "bins": event.edges}
            return [_build_row(event, row_number, run, [(event.key, value)], event.step)]
        if isinstance(event, MediaFile):
            path = find_file(event, run)
            data = path.read_bytes()
            value = _describe_media(event, path, data)
            extension = ".table.json" if isinstance(event, Table) else path.suffix
            return _build_media(event, row_number, run, files, _FOLDERS[type(event)], extension, data, value)
        if isinstance(event, Text):
            data = f"<pre>{html.escape(event.text)}</pre>".encode()
            return _build_media(event, row_number, run, files, "html", ".html", data, {"_type": "html-file"})
        if isinstance(event, Artifact):
            return _build_artifact(find_file(event, run), event.artifact_path, files, run)
    except (OSError, ValueError) as error:
        raise RejectedEventError(event.seq, str(error)) from error
    if isinstance(event, Dataset):
        description = json.dumps({"digest": event.digest, "source": event.source})
        record = pb.Record()
        record.config.update.add(key=f"datasets/{event.context}/{event.name}", value_json=description)
        return [record]
    if isinstance(event, Params | Tags):
        record = pb.Record()
        for key, param in event.values.items():
            name = key if isinstance(event, Params) else f"tags/{key}"
            record.config.update.add(key=name, value_json=json.dumps(param))
        return [record]
    return []


def _build_row(
    event: AnyEvent | MediaFile, row_number: int, run: RunView, values: Iterable[tuple[str, Any]], step: int
) -> pb.Record:
    record = pb.Record()
    row = record.history
    for key, value in values:
        if isinstance(value, Mapping):
            for part, inner in value.items():
                row.item.add(nested_key=[key, part], value_json=json.dumps(inner))
        else:
            row.item.add(nested_key=[key], value_json=json.dumps(value))
    if isinstance(event, Metrics) and event.epoch is not None and "epoch" not in event.values:
        row.item.add(nested_key=["epoch"], value_json=json.dumps(event.epoch))
    runtime = max(event.time - run.start_time, 0.0)
    for key, clock in ((STEP_KEY, step), ("_timestamp", event.time), ("_runtime", runtime), ("_step", row_number)):
        row.item.add(nested_key=[key], value_json=json.dumps(clock))
    row.step.num = row_number
    return record


def _describe_media(event: MediaFile, path: Path, data: bytes) -> dict[str, Any]:
    """Return the fields of a value that depend on its kind."""
    caption = {"caption": event.caption} if event.caption else {}
    if isinstance(event, Table):
        table = read_table(path)
        size = {"ncols": len(table.columns), "nrows": len(table.data)}
        return {"_type": "table-file", "log_mode": "IMMUTABLE", **size, **caption}
    if isinstance(event, Html | Audio | Video):
        return {"_type": f"{type(event).__name__.lower()}-file", **caption}
    return {"_type": "image-file", "format": "png", **_read_image_size(data), **caption}


def _build_media(
    event: MediaFile | Text,
    row_number: int,
    run: RunView,
    files: Path,
    subdirectory: str,
    extension: str,
    data: bytes,
    value: dict[str, Any],
) -> list[pb.Record]:
    digest = hashlib.sha256(data).hexdigest()
    path = Path("media", subdirectory, f"{safe_file_name(event.key)}_{event.step}_{digest[:20]}{extension}")
    make_owned_directory((files / path).parent, run.directory)
    (files / path).unlink(missing_ok=True)
    (files / path).write_bytes(data)
    value = {**value, "sha256": digest, "size": len(data), "path": str(path)}
    return [_build_files([path]), _build_row(event, row_number, run, [(event.key, value)], event.step)]


def _build_artifact(source: Path, artifact_path: str, files: Path, run: RunView) -> list[pb.Record]:
    target = Path("artifacts", artifact_path, source.name)
    copies: list[Path] = []
    for file in list_owned_files(run.directory, source)[0]:
        copy = target / file.relative_to(source)
        make_owned_directory((files / copy).parent, run.directory)
        (files / copy).unlink(missing_ok=True)
        shutil.copyfile(file, files / copy)
        copies.append(copy)
    return [_build_files(copies)]


def _build_files(paths: Iterable[Path]) -> pb.Record:
    record = pb.Record()
    for path in paths:
        record.files.files.add(path=str(path), policy=pb.FilesItem.PolicyType.END)
    return record


def _read_image_size(png: bytes) -> dict[str, int]:
    # The size follows the signature and the header of the first chunk; see https://www.w3.org/TR/png-3/#11IHDR.
    width, height = struct.unpack_from(">II", png, 16) if len(png) >= 24 else (0, 0)
    return {"width": width, "height": height}


def select_finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Select the finite values of a row, which a summary and the saved state can store.

    Args:
        values: Values of a row.

    Returns:
        The finite values.
    """
    return {key: value for key, value in values.items() if math.isfinite(value)}
