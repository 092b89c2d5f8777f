"""Summary of a run. Reads the run directory without locking it, so the run may be training."""

from __future__ import annotations

import itertools
from collections import deque
from pathlib import Path
from typing import Literal

import msgspec

from pte_tracking._delivery.backlog import SinkBacklog, backlog
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.locations import SinkLocation, find_location
from pte_tracking._store.checkpoints import list_checkpoints, rank_by_metric
from pte_tracking._store.discovery import find_run
from pte_tracking._store.events import Checkpoint, Metrics, Number, Params, Provenance, Scalar, Status, Tags
from pte_tracking._store.journal_reader import effective_ranges, find_events, read_effective_reversed
from pte_tracking._store.layout import DELIVERY_LOG, JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.metrics import RunMetrics, summarize_metrics
from pte_tracking._store.status import read_status

_MAX_ROWS = 8
_MAX_SEARCHED_ROWS = 500  # newest rows among which those of each log are searched


class RunSummary(msgspec.Struct, frozen=True):
    """Summary of a run.

    Attributes:
        directory: Run directory.
        id: ID of the run.
        name: Display name of the run.
        group: Group of the run. None if it belongs to none.
        status: Current status.
        start_time: Time of the first start in seconds since the Unix epoch.
        sinks: Keys of the sinks.
        params: Parameters by name.
        earlier_params: Values that a resume has changed, oldest first, by name of the parameter.
        tags: Tags by name.
        provenance: Origin of the last session that recorded it.
        step: Highest step of a row or a checkpoint. None if there are none.
        rows: Last rows of the JSON log ``log``, or of the first log of the run, oldest first, at most 8.
        other_rows: The same of the other logs with recent rows, by file name. Logs that no sink receives are omitted
            if there is another one.
        checkpoints: Effective checkpoints in ascending order of their steps.
        ranking: Metric by which the training ranks the snapshots, and ``"min"`` or ``"max"``. None if it does not.
        best_checkpoint: Path of the best checkpoint by this metric. None if there is none.
        pending: Pending events of each sink, with the reason.
        locations: Where the run is found in its backends, as far as known.
        rejected: Reasons for which sinks rejected events, by key of the sink and sequence number of the event.
        hidden: Kinds of delivered events that a backend does not show, by key of the sink.
        delivery_log: Last 5 lines of the delivery log, without those of level INFO.
    """

    directory: str
    id: str
    name: str
    group: str | None
    status: Status
    start_time: float
    sinks: list[str]
    params: dict[str, Scalar]
    earlier_params: dict[str, list[Scalar]]
    tags: dict[str, str]
    provenance: dict[str, str]
    step: int | None
    rows: list[dict[str, Number]]
    other_rows: dict[str, list[dict[str, Number]]]
    checkpoints: list[Checkpoint]
    ranking: tuple[str, Literal["min", "max"]] | None
    best_checkpoint: str | None
    pending: list[SinkBacklog]
    locations: list[SinkLocation]
    rejected: dict[str, dict[str, str]]
    hidden: dict[str, list[str]]
    delivery_log: list[str]


def summarize(directory: Path, metrics: RunMetrics | None = None) -> RunSummary:
    """Return the summary of the run in a directory.

    Args:
        directory: Run directory.
        metrics: The metrics of the run, if they were read before.

    Raises:
        RunNotFoundError: If the directory contains no readable run.
    """
    manifest, path = find_run(directory), directory / JOURNAL
    (_, rows), *other_rows = _read_last_rows(path) or [("log", [])]
    cursors = {entry.key: Cursor.load(directory, entry.key) for entry in manifest.sinks}
    checkpoints = list_checkpoints(directory)
    params, earlier_params = _read_all_params(path)
    metrics = metrics or summarize_metrics(directory)
    steps = [checkpoint.step for checkpoint in checkpoints]
    return RunSummary(
        directory=str(directory),
        id=manifest.id,
        name=manifest.name,
        group=manifest.group,
        status=read_status(directory),
        start_time=manifest.start_time,
        sinks=[entry.key for entry in manifest.sinks],
        params=params,
        earlier_params=earlier_params,
        tags=read_tags(directory),
        provenance=read_provenance(directory),
        step=max(steps if metrics.step is None else [*steps, metrics.step], default=None),
        rows=rows,
        other_rows=dict(other_rows),
        checkpoints=checkpoints,
        ranking=manifest.ranking,
        best_checkpoint=_find_best(checkpoints, manifest),
        pending=backlog(directory, manifest),
        locations=[place for entry in manifest.sinks if (place := find_location(directory, entry))],
        rejected={key: cursor.rejected for key, cursor in cursors.items() if cursor.rejected},
        hidden={key: cursor.hidden for key, cursor in cursors.items() if cursor.hidden},
        delivery_log=_read_delivery_log(directory / DELIVERY_LOG),
    )


def _find_best(checkpoints: list[Checkpoint], manifest: Manifest) -> str | None:
    if manifest.ranking is None:
        return None
    return next((checkpoint.path for checkpoint in rank_by_metric(checkpoints, *manifest.ranking)), None)


def read_params(directory: Path) -> dict[str, Scalar]:
    """Return the effective parameters of the run in a directory, by name."""
    return _read_all_params(directory / JOURNAL)[0]


def _read_all_params(path: Path) -> tuple[dict[str, Scalar], dict[str, list[Scalar]]]:
    """Return the effective parameters of a run, and the values that were replaced, by name."""
    params: dict[str, Scalar] = {}
    replaced: dict[str, list[Scalar]] = {}
    for start, end in effective_ranges(path):
        for event, _ in find_events(path, Params, start, end):
            for key, value in event.values.items():
                # Representations differ if the types do: 1, 1.0, and True are equal in Python.
                if key in params and repr(params[key]) != repr(value):
                    replaced.setdefault(key, []).append(params[key])
            params.update(event.values)
    return params, replaced


def read_tags(directory: Path) -> dict[str, str]:
    """Return the effective tags of the run in a directory, by name."""
    path = directory / JOURNAL
    tags: dict[str, str] = {}
    for start, end in effective_ranges(path):
        for event, _ in find_events(path, Tags, start, end):
            tags.update(event.values)
    return tags


def read_provenance(directory: Path) -> dict[str, str]:
    """Return the origin of the last session that recorded it, by name. Empty if no session did."""
    values: dict[str, str] = {}
    for event, _ in find_events(directory / JOURNAL, Provenance):
        values = event.values
    return values


def _read_last_rows(path: Path) -> list[tuple[str, list[dict[str, Number]]]]:
    """Return the last rows of each log that has any among the newest rows of the run, by the names of the logs.

    The rows of logs that no sink receives are returned only if there are no others.
    """
    newest = (event for event in read_effective_reversed(path) if isinstance(event, Metrics))
    rows: dict[str, deque[dict[str, Number]]] = {}
    sent: set[str] = set()
    for event in itertools.islice(newest, _MAX_SEARCHED_ROWS):
        if event.log is None:
            continue
        if event.sinks != []:
            sent.add(event.log)
        if len(kept := rows.setdefault(event.log, deque())) < _MAX_ROWS:
            kept.appendleft(_to_row(event))
    return sorted((log, list(kept)) for log, kept in rows.items() if log in (sent or rows))


def _to_row(event: Metrics) -> dict[str, Number]:
    row: dict[str, Number] = {} if event.epoch is None else {"epoch": event.epoch}
    return row | {"iteration": event.step} | event.values  # type: ignore[return-value]  # decoded values are numbers


def _read_delivery_log(path: Path) -> list[str]:
    if not path.exists():
        return []
    with open(path, errors="replace") as file:
        # Other lines tell what a backend did, such as "creating the database", which was of interest at that time only.
        return [line.rstrip() for line in deque((line for line in file if line.split()[2:3] != ["INFO"]), 5)]
