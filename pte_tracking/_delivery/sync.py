"""Deliver what is left of a run, in the foreground: after an outage, from a login node, or to one more backend."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pte_tracking._delivery.backlog import SinkBacklog, backlog
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.process import deliver
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._delivery.supervisor import request_handover, request_retry, spawn_delivery
from pte_tracking._store.discovery import find_run
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.lock import LockedError
from pte_tracking._store.manifest import Manifest, update_manifest
from pte_tracking._store.status import read_status
from pte_tracking.sinks import Sink


def sync(directory: Path, timeout: float = 60.0, to: Sequence[Sink] = ()) -> list[SinkBacklog]:
    """Deliver until nothing is left of what the journal holds now.

    A living delivery process is woken and waited for instead of contended with. One that is refused is relieved: it was
    given a password that is wrong, which a process cannot be told anew; one of ours goes on.

    Args:
        directory: The run's directory.
        timeout: Give up after so many seconds without progress.
        to: Sinks to add to the run, for good.

    Returns:
        What is left.

    Raises:
        RunNotFoundError: There is no run.
    """
    directory = directory.absolute()
    manifest = find_run(directory)
    if to:
        manifest = update_manifest(
            directory, lambda now: msgspec.structs.replace(now, sinks=merge_sink_entries(to, now.sinks))
        )
    # While the trainer lives there is always more to come; what is there now is enough then.
    size = last_event(directory / JOURNAL)[1] if read_status(directory) == "RUNNING" else None

    def is_enough(idle: float) -> bool:
        return idle > timeout or not backlog(directory, manifest, size)

    begun, is_relieved = time.time(), False
    request_retry(directory)
    last, since = backlog(directory, manifest, size), time.monotonic()
    while not is_enough(time.monotonic() - since):
        try:
            deliver(directory, is_enough)
            break
        except LockedError:
            if _is_refused(directory, manifest, begun):
                request_handover(directory)
                is_relieved = True
            time.sleep(0.1)
        left = backlog(directory, manifest, size)
        if [one.events for one in left] != [one.events for one in last]:
            last, since = left, time.monotonic()
    left = backlog(directory, manifest, size)
    if is_relieved and (left or read_status(directory) == "RUNNING"):
        spawn_delivery(directory)
    return left


def _is_refused(directory: Path, manifest: Manifest, since: float) -> bool:
    found = (Cursor.load(directory, entry.key) for entry in manifest.sinks)
    return any((one.error or "").startswith("PermissionError") and (one.error_time or 0) > since for one in found)
