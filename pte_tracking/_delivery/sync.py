"""Deliver the pending events of a run in the foreground."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pte_tracking._delivery.backlog import SinkBacklog, backlog, has_auth_error, have_closed_since
from pte_tracking._delivery.control import request_handover, request_retry
from pte_tracking._delivery.delivery_loop import deliver, verify
from pte_tracking._delivery.shared_process import spawn_delivery
from pte_tracking._delivery.sink_entries import add_sinks
from pte_tracking._store.discovery import find_run
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.lock import LockedError
from pte_tracking._store.manifest import update_manifest
from pte_tracking._store.status import read_status
from pte_tracking.sinks import Sink

_POLL_SECONDS = 0.1


def sync(directory: Path, timeout: float = 60.0, to: Sequence[Sink] = ()) -> list[SinkBacklog]:
    """Deliver all events that the journal contains now.

    If a delivery process is running, request an immediate retry and wait for the process. If a backend refuses the
    credentials of that process, deliver with the credentials of this process instead.

    Args:
        directory: The run directory.
        timeout: Maximum time without progress, in seconds.
        to: Sinks to add to the run permanently.

    Returns:
        The pending events of each sink. Empty if all events were delivered.

    Raises:
        RunNotFoundError: If the directory contains no run, or a run that this version cannot read.
    """
    directory = directory.absolute()
    manifest = find_run(directory)
    if to:
        manifest = update_manifest(directory, lambda now: add_sinks(now, to))
    # A training process that is running adds events at any time, so the current end of the journal is the target.
    size = last_event(directory / JOURNAL)[1] if read_status(directory) == "RUNNING" else None

    def pending() -> list[SinkBacklog]:
        return backlog(directory, manifest, size)

    if not pending():
        verify(directory)
    if not pending():
        return []
    request_retry(directory)
    was_handover_requested = _deliver_or_wait(directory, timeout, pending)
    remaining = pending()
    if was_handover_requested and (remaining or read_status(directory) == "RUNNING"):
        spawn_delivery(directory)
    return remaining


def _deliver_or_wait(directory: Path, timeout: float, pending: Callable[[], list[SinkBacklog]]) -> bool:
    """Deliver as soon as no other process delivers. Return whether a handover was requested for that."""
    start_time = time.time()

    def should_stop(idle_seconds: float) -> bool:
        return idle_seconds > timeout or have_closed_since(directory, pending(), start_time)

    request_time, was_handover_requested = time.time(), False
    counts, progress_time = _counts(pending()), time.monotonic()
    while not should_stop(time.monotonic() - progress_time):
        try:
            deliver(directory, should_stop)
            break
        except LockedError:
            if has_auth_error(directory, request_time):
                request_handover(directory)
                request_time, was_handover_requested = time.time(), True
            time.sleep(_POLL_SECONDS)
        if (current := _counts(pending())) != counts:
            counts, progress_time = current, time.monotonic()
    return was_handover_requested


def _counts(pending: list[SinkBacklog]) -> list[int]:
    return [sink.events for sink in pending]
