"""Stop the delivery of a run, so that its directory can be moved."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from pte_tracking._delivery.control import request_handover
from pte_tracking._delivery.shared_process import forget_run
from pte_tracking._platform.signals import terminate
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK

_logger = logging.getLogger("pte_tracking")
#: Time within which a process hands over a run. Over NFS, a process on another machine may see the request after a
#: minute.
_LOCAL_STOP_SECONDS, _REMOTE_STOP_SECONDS = 5.0, 90.0
_MAX_ATTEMPTS = 3  # to stop processes that begin with the delivery one after the other


@contextlib.contextmanager
def delivery_stopped(directory: Path) -> Iterator[bool]:
    """Stop the delivery of a run, and let no process begin one while the files of the run are moved.

    Args:
        directory: The run directory.

    Yields:
        Whether the run was being delivered, or is waiting for the delivery process of this process.

    Raises:
        LockedError: If a process that cannot receive a signal continues to deliver the run.
    """
    was_delivered = forget_run(directory)
    for attempt in range(_MAX_ATTEMPTS):
        was_delivered |= stop_delivery(directory)
        path = directory / DELIVERY_LOCK
        if not (path.exists() or (was_delivered and path.parent.is_dir())):  # a run that was never delivered
            yield was_delivered
            return
        try:
            held = lock.Lock(path)
            break
        except lock.LockedError:  # another process began meanwhile
            if attempt + 1 == _MAX_ATTEMPTS:
                raise
    try:
        yield was_delivered
    finally:
        held.release()


def stop_delivery(directory: Path) -> bool:
    """Stop the delivery of a run, so that its directory can be moved. No event is lost.

    Request a handover first, because the process that delivers may also deliver other runs, or run on another machine.
    Terminate a process of this machine that does not react.

    Args:
        directory: The run directory.

    Returns:
        Whether the run was being delivered.

    Raises:
        LockedError: If a process that cannot receive a signal continues to deliver the run.
    """
    path = directory / DELIVERY_LOCK
    holder = lock.holder(path)
    if holder is None:
        return False
    is_local = holder.is_local_process()
    request_handover(directory)
    if not is_local:
        _logger.warning("%s: waiting for %s to release the earlier run", directory, holder)
    if _wait_until_free(path, _LOCAL_STOP_SECONDS if is_local else _REMOTE_STOP_SECONDS):
        return True
    if not is_local:
        raise lock.LockedError(path, holder)
    # The process may have ended meanwhile, and its ID may be that of another process.
    if holder.pid is not None and holder.is_local_process():
        terminate(holder.pid)
        _wait_until_free(path, _LOCAL_STOP_SECONDS)
    return True


def _wait_until_free(path: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (is_held := lock.is_held(path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_held
