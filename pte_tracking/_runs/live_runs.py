"""Runs of this process: their end with the process, and their detachment in forked children."""

from __future__ import annotations

import atexit
import collections
import contextlib
import gc
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pte_tracking._delivery.end_wait import EndWait
from pte_tracking._delivery.shared_process import leave_processes
from pte_tracking._platform.processes import after_fork_in_child
from pte_tracking._runs.outcome import ErrorId, Outcome, error_id, last_uncaught_error, outcome_of
from pte_tracking._store import lock
from pte_tracking._store.events import Status
from pte_tracking._store.layout import MANIFEST_LOCK, WRITER_LOCK


class LiveRun(Protocol):
    """Run of this process."""

    directory: Path
    is_complete: Callable[[], bool] | None
    is_abandoned: bool
    error_before: ErrorId | None
    outcome_if_collected: Outcome | None

    @property
    def is_open(self) -> bool: ...

    def close(self, status: Status | None = None, error: str | None = None, stopped_by: str | None = None) -> None: ...

    def end_with_process(self) -> None: ...

    def detach_in_child(self) -> None: ...


#: All runs of this process that are referred to.
_runs: weakref.WeakSet[LiveRun] = weakref.WeakSet()
#: Threads that write to a run directory, and therefore refer to its run, with the paths that they write.
_writing_threads: weakref.WeakKeyDictionary[threading.Thread, Path] = weakref.WeakKeyDictionary()
#: Deliveries of runs that were collected, and the number of seconds to wait for each.
_deliveries: collections.deque[tuple[EndWait, float]] = collections.deque()
_CHECKED_DELIVERIES = 2  # whenever one is added, so that the list of unfinished ones stays short
_MAX_COLLECTION_SECONDS = 5.0  # until a run that another thread collects has released its lock
#: Processes whose end closes their runs.
_watched_processes: set[int] = set()


def add_run(run: LiveRun) -> None:
    """Add a run, which ends with the process at the latest."""
    _runs.add(run)
    _watch_multiprocessing()


def add_writing_thread(thread: threading.Thread, path: Path) -> None:
    """Add a thread that refers to a run until it has written to its directory.

    Args:
        thread: The thread, which is started.
        path: Path of the file that it writes.
    """
    _writing_threads[thread] = path


def await_at_exit(end_wait: EndWait, timeout: float) -> None:
    """Wait for the delivery of a run when the interpreter ends.

    Args:
        end_wait: The wait.
        timeout: Maximum number of seconds.
    """
    _deliveries.append((end_wait, timeout))
    for _ in range(min(_CHECKED_DELIVERIES, len(_deliveries) - 1)):
        earlier, seconds = _deliveries.popleft()
        if not earlier.is_over():
            _deliveries.append((earlier, seconds))


def end_earlier(run: LiveRun) -> None:
    """End other runs in the directory of a run that are complete, or whose training loop an exception left.

    In an interactive session, an interrupt leaves any call, and the variables of the session keep its run alive.
    """
    error = last_uncaught_error()
    is_interrupted = hasattr(sys, "ps1") and isinstance(error, KeyboardInterrupt)
    if is_interrupted:
        lock.release_here(run.directory / MANIFEST_LOCK)
    for other in _others(run):
        is_new = error is not None and error_id(error) != other.error_before
        if other.is_complete and other.is_complete():
            other.close()
        elif other.is_abandoned or (is_interrupted and is_new and other.is_open):
            unknown = Outcome("FAILED", "An exception left the training loop.")
            other.is_abandoned = True
            other.close(*(outcome_of(error) if is_new else unknown))


def end_earlier_when_written(run: LiveRun) -> None:
    """Wait for the snapshots of the directory of a run, and end other runs as :func:`end_earlier` does.

    A snapshot that an interrupt left opens its run again when it is complete.
    """
    _join_writing_threads(run.directory)
    end_earlier(run)


def collect_others(run: LiveRun) -> None:
    """End other runs in the directory of a run that nothing but an exception refers to.

    The traceback of the last uncaught exception of an interactive session keeps the variables of the interrupted
    functions. They are deleted.
    """
    error = last_uncaught_error() if hasattr(sys, "ps1") else None
    count = _expect_collection(run, error)
    _join_writing_threads(run.directory)
    gc.collect()
    if len(_open_others(run)) == count and error is not None:
        _clear_frames(error)
        gc.collect()
    _expect_collection(run, None)
    # While another thread collects garbage, gc.collect() does nothing.
    path, deadline = run.directory / WRITER_LOCK, time.monotonic() + _MAX_COLLECTION_SECONDS
    while not _open_others(run) and lock.is_held_here(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    if isinstance(error, KeyboardInterrupt) and not _open_others(run):
        lock.release_here(path)


def _join_writing_threads(directory: Path) -> None:
    if threading.current_thread() in _writing_threads:  # Two of them would wait for each other.
        return
    for thread, path in list(_writing_threads.items()):
        if directory in path.parents:
            thread.join()


def _expect_collection(run: LiveRun, error: BaseException | None) -> int:
    """Set the outcome with which collected runs end. Return the number of open runs, without keeping them alive."""
    others = _open_others(run)
    for other in others:
        is_new = error is not None and error_id(error) != other.error_before
        other.outcome_if_collected = outcome_of(error) if is_new else None
    return len(others)


def _clear_frames(error: BaseException) -> None:
    """Delete the variables of the functions that an exception and its causes left."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        traceback.clear_frames(following.__traceback__)
        following = following.__cause__ or following.__context__


def _open_others(run: LiveRun) -> list[LiveRun]:
    return [other for other in _others(run) if other.is_open]


def _others(run: LiveRun) -> list[LiveRun]:
    return [other for other in list(_runs) if other is not run and other.directory == run.directory]


@atexit.register
def _end_all() -> None:
    first: BaseException | None = None
    for run in list(_runs):
        try:
            run.end_with_process()
        except KeyboardInterrupt:  # ends the wait for the delivery, which is logged
            continue
        except BaseException as error:
            first = first or error
    start = time.monotonic()
    while _deliveries:
        end_wait, timeout = _deliveries.popleft()
        with contextlib.suppress(KeyboardInterrupt):
            end_wait.wait(max(0.0, timeout - (time.monotonic() - start)))
    leave_processes()
    if first is not None:
        raise first


def _watch_multiprocessing() -> None:
    # The children of multiprocessing end without exit functions.
    process = sys.modules.get("multiprocessing.process")
    if process is None or process.parent_process() is None or os.getpid() in _watched_processes:
        return
    from multiprocessing.util import Finalize  # imported only in a child, which has imported it

    _watched_processes.add(os.getpid())
    Finalize(None, _end_all, exitpriority=10)


def _detach_all() -> None:
    # A forked child, such as a data loader worker, writes nothing, because the parent continues to write the run.
    _deliveries.clear()
    for run in list(_runs):
        run.detach_in_child()


after_fork_in_child(_detach_all)
