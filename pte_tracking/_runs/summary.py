"""A run at a glance, from what lies in its directory; nothing is written or locked, so it may be training."""

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
    """What people ask of a run.

    Attributes:
        directory: Where it lies.
        id: Its identity.
        name: Its name.
        status: How it stands.
        start_time: When it started, in seconds since the epoch.
        sinks: The keys of its sinks.
        params: Its hyperparameters.
        step: Iterations done at the last row.
        rows: The last rows, oldest first.
        checkpoints: Its snapshots, by step.
        pending: What is not delivered yet, and why.
        said: What the delivery process has said last.
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
    """The summary of the run in a directory.

    Raises:
        RunNotFoundError: There is none, or this version cannot read it.
    """
    manifest, path = find_run(directory), directory / JOURNAL
    metrics = (event for event in read_effective_reversed(path) if isinstance(event, Metrics))
    rows = list(itertools.islice(metrics, _MAX_ROWS))
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
    return row | {"iteration": event.step} | event.values  # type: ignore[return-value]  # decoded: no texts are left


def _read_delivery_log(path: Path) -> list[str]:
    if not path.exists():
        return []
    with open(path, errors="replace") as file:
        return [line.rstrip() for line in deque(file, 5)]
