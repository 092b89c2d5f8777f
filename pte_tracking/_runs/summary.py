"""Summary of a run. Reads the run directory without locking it, so the run may be training."""

from __future__ import annotations

import itertools
from collections import deque
from pathlib import Path

import msgspec

from pte_tracking._delivery.backlog import SinkBacklog, backlog
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.discovery import find_run
from pte_tracking._store.events import Checkpoint, Metrics, Number, Params, Scalar, Status
from pte_tracking._store.journal_reader import effective_ranges, find_events, read_effective_reversed
from pte_tracking._store.layout import DELIVERY_LOG, JOURNAL
from pte_tracking._store.status import read_status

_MAX_ROWS = 8


class RunSummary(msgspec.Struct, frozen=True):
    """Summary of a run.

    Attributes:
        directory: Run directory.
        id: ID of the run.
        name: Display name of the run.
        status: Current status.
        start_time: Time of the first start in seconds since the Unix epoch.
        sinks: Keys of the sinks.
        params: Parameters by name.
        step: Step of the last row. None if there are no rows.
        rows: Last rows, oldest first, at most 8.
        checkpoints: Effective checkpoints in ascending order of their steps.
        pending: Pending events of each sink, with the reason.
        delivery_log: Last 5 lines of the delivery log.
    """

    directory: str
    id: str
    name: str
    status: Status
    start_time: float
    sinks: list[str]
    params: dict[str, Scalar]
    step: int | None
    rows: list[dict[str, Number]]
    checkpoints: list[Checkpoint]
    pending: list[SinkBacklog]
    delivery_log: list[str]


def summarize(directory: Path) -> RunSummary:
    """Return the summary of the run in a directory.

    Raises:
        RunNotFoundError: If the directory contains no readable run.
    """
    manifest, path = find_run(directory), directory / JOURNAL
    newest = (event for event in read_effective_reversed(path) if isinstance(event, Metrics) and event.log is not None)
    rows = list(itertools.islice(newest, _MAX_ROWS))
    params: dict[str, Scalar] = {}
    for start, end in effective_ranges(path):
        for event, _ in find_events(path, Params, start, end):
            params.update(event.values)
    return RunSummary(
        directory=str(directory),
        id=manifest.id,
        name=manifest.name,
        status=read_status(directory),
        start_time=manifest.start_time,
        sinks=[entry.key for entry in manifest.sinks],
        params=params,
        step=rows[0].step if rows else None,
        rows=[_to_row(event) for event in reversed(rows)],
        checkpoints=list_checkpoints(directory),
        pending=backlog(directory, manifest),
        delivery_log=_read_delivery_log(directory / DELIVERY_LOG),
    )


def _to_row(event: Metrics) -> dict[str, Number]:
    row: dict[str, Number] = {} if event.epoch is None else {"epoch": event.epoch}
    return row | {"iteration": event.step} | event.values  # type: ignore[return-value]  # decoded values are numbers


def _read_delivery_log(path: Path) -> list[str]:
    if not path.exists():
        return []
    with open(path, errors="replace") as file:
        return [line.rstrip() for line in deque(file, 5)]
