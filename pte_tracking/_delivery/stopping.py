"""Stop the delivery of a run, so that its directory can be moved."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from pathlib import Path

from pte_tracking._delivery.control import request_handover
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK

_logger = logging.getLogger("pte_tracking")
#: Time within which a process hands over a run. Over NFS, a process on another machine may see the request after a
#: minute.
_LOCAL_STOP_SECONDS, _REMOTE_STOP_SECONDS = 5.0, 90.0


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
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.pid, signal.SIGTERM)
        _wait_until_free(path, _LOCAL_STOP_SECONDS)
    return True


def _wait_until_free(path: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (is_held := lock.is_held(path)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_held
