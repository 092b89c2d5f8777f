"""Conversion of events to rows and to the configuration of a Trackio run."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from trackio import get_project_media_path
from trackio.utils import MEDIA_DIR

from pte_backends._files import find_file
from pte_tracking.sinks import (
    AnyEvent,
    Dataset,
    Figure,
    Histogram,
    Image,
    MediaFile,
    Metrics,
    Params,
    Provenance,
    RejectedEventError,
    RunStarted,
    RunView,
    Status,
    Table,
    Tags,
    Text,
    read_table,
)


class Row(NamedTuple):
    """Row of the table ``metrics``.

    Attributes:
        id: ID of the row. The database stores one row per ID.
        step: Number of completed iterations.
        timestamp: Time of the event, in the format of Trackio.
        values: Values by key.
    """

    id: str
    step: int
    timestamp: str
    values: dict[str, Any]


def build_first_row(run: RunView) -> Row:
    """Build a row without values, by which Trackio lists a run that has not logged metrics yet."""
    return Row(run.id, 0, _format_time(run.start_time), {})


def build_rows(event: AnyEvent, project: str, run: RunView) -> list[Row]:
    """Build the rows of one event, and copy the file that it refers to.

    Args:
        event: Event to convert.
        project: Name of the project.
        run: Run to deliver.

    Returns:
        The rows. Empty if the event has none.

    Raises:
        RejectedEventError: If a file of the run is missing.
    """
    if isinstance(event, Metrics):
        # A row with too many values arrives in several parts, which have the same sequence number.
        return [_build_row(event, run, dict(event.values), part=next(iter(event.values)))] if event.values else []
    if isinstance(event, Histogram):
        histogram = {"_type": "trackio.histogram", "bins": event.edges, "values": event.counts}
        return [_build_row(event, run, {event.key: histogram})]
    if isinstance(event, Text):
        return [_build_row(event, run, {event.key: {"_type": "trackio.markdown", "_value": event.text}})]
    if isinstance(event, Table):
        return [_build_row(event, run, {event.key: {"_type": "trackio.table", "_value": _read_rows(event, run)}})]
    if isinstance(event, MediaFile):
        path, caption = _copy_file(event, project, run), event.caption or None
        return [_build_row(event, run, {event.key: {"_type": _get_type(event), "file_path": path, "caption": caption}})]
    return []


def build_config(event: AnyEvent, run: RunView) -> dict[str, Any]:
    """Build the part of the configuration that one event changes.

    Args:
        event: Event to convert.
        run: Run to deliver.

    Returns:
        The values by key. Empty if the event changes none.
    """
    if isinstance(event, RunStarted):
        origin = {f"run/{key}": run.context[key] for key in ("host", "git_commit") if key in run.context}
        shown = {"_Username": run.context.get("user"), "_Group": run.context.get("group")}
        return shown | {"_Created": _format_time(run.start_time), **origin} | build_status("RUNNING")
    if isinstance(event, Provenance):
        return {f"run/{key}": value for key, value in event.values.items()}
    if isinstance(event, Params):
        # Trackio does not show keys that start with an underscore.
        return {f"params/{key}" if key.startswith("_") else key: value for key, value in event.values.items()}
    if isinstance(event, Tags):
        return {f"tags/{key}": value for key, value in event.values.items()}
    if isinstance(event, Dataset):
        return {f"datasets/{event.context}/{event.name}": {"digest": event.digest, "source": event.source}}
    return {}


def build_status(status: Status) -> dict[str, Any]:
    """Build the part of the configuration that contains the status of the run."""
    return {"run/status": status}


def _build_row(
    event: Metrics | Histogram | Text | MediaFile, run: RunView, values: dict[str, Any], part: str = ""
) -> Row:
    # A run that continues elsewhere without its journal counts from 1 again, so the sequence number is not unique.
    return Row(f"{run.id}/{event.seq}/{event.time}/{part}", event.step, _format_time(event.time), values)


def _get_type(event: MediaFile) -> str:
    kind = "image" if isinstance(event, Figure | Image) else type(event).__name__.lower()
    return f"trackio.{kind}"


def _read_rows(event: Table, run: RunView) -> list[dict[str, Any]]:
    try:
        table = read_table(find_file(event, run))
    except (OSError, ValueError) as error:
        raise RejectedEventError(event.seq, str(error)) from error
    # Trackio reads an object in a cell as a description of a file.
    rows = [[json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in row] for row in table.data]
    return [dict(zip(table.columns, row, strict=True)) for row in rows]


def _copy_file(event: MediaFile, project: str, run: RunView) -> str:
    source = find_file(event, run)
    # The name depends on the event only, so a redelivered event overwrites its file.
    folder = Path(get_project_media_path(project=project, run=run.id, step=event.step))
    target = folder / f"{event.seq}{source.suffix}"
    shutil.copyfile(source, target)
    return target.relative_to(MEDIA_DIR).as_posix()


def _format_time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat()
