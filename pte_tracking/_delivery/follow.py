"""Delivery of all runs below a directory as they grow, for clusters without network access.

Training machines write to a file system that a login node shares, and one process on the login node delivers all runs.
Locks of the file system show which runs are being trained or delivered. Process IDs are not used, because they have no
meaning on another machine.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.control import ControlReader
from pte_tracking._delivery.delivery_loop import deliver
from pte_tracking._delivery.ownership import check_owner
from pte_tracking._store.discovery import find_runs
from pte_tracking._store.files import mtime_ns
from pte_tracking._store.layout import DELIVERY_LOCK, JOURNAL, MANIFEST
from pte_tracking._store.lock import LockedError, is_held
from pte_tracking._store.manifest import Manifest, RunNotFoundError
from pte_tracking._store.status import read_status

_logger = logging.getLogger("pte_tracking")
_SCAN_SECONDS = 2.0  # between two searches for new runs and new events
_RETRY_SECONDS = 60.0  # until the next attempt to deliver a run with pending events
_STOP_SECONDS = 5.0  # maximum time to wait for running requests at the end

#: Size of the journal and modification time of the manifest, which change with every new event or sink. The time of the
#: journal would not, because it can be as coarse as a second on a shared file system.
_RunVersion = tuple[int, int]


def follow(folder: Path, print_line: Callable[[str], object], *, trust: bool = False) -> None:
    """Deliver all runs below a directory until SIGINT or SIGTERM. Pending events remain for the next call.

    Args:
        folder: The directory, which is searched recursively.
        print_line: Called with one line when the delivery of a run starts or ends.
        trust: Whether to deliver runs of other users, too.
    """
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous_handlers = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _Follower(folder.absolute(), print_line, stop, trust).run()
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


class _Follower:
    def __init__(self, folder: Path, print_line: Callable[[str], object], stop: threading.Event, trust: bool) -> None:
        self._folder = folder
        self._print = print_line
        self._stop = stop
        self._trust = trust
        self._threads: dict[Path, threading.Thread] = {}
        #: Runs that are skipped until they change, or until a time, with the version that was checked.
        self._checked: dict[Path, tuple[_RunVersion, float]] = {}
        # Reported runs and warnings, because each run is checked repeatedly while it grows.
        self._delivered_elsewhere: set[Path] = set()
        self._failed: set[Path] = set()
        self._warned: set[str] = set()

    def run(self) -> None:
        while not self._stop.is_set():
            self._threads = {run: thread for run, thread in self._threads.items() if thread.is_alive()}
            for run in find_runs(self._folder):
                if run not in self._threads:
                    self._check_run(run)
            self._stop.wait(_SCAN_SECONDS)
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads.values():
            thread.join(max(deadline - time.monotonic(), 0))

    def _check_run(self, run: Path) -> None:
        try:
            version = _run_version(run)
            checked_version, recheck_time = self._checked.get(run, (None, 0.0))
            if version == checked_version and time.monotonic() < recheck_time:
                return
            if not self._trust:
                check_owner(run)
            pending = [sink for sink in backlog(run, Manifest.load(run)) if not sink.is_closed]
            has_ended = read_status(run) != "RUNNING"
            is_delivered_elsewhere = bool(pending) and is_held(run / DELIVERY_LOCK)
        except FileNotFoundError:  # the run is being created or removed
            return
        except (RunNotFoundError, OSError) as error:
            self._warn_once(str(error))
            return
        if pending or has_ended:
            # An ended run without pending events is checked again only after a change.
            self._checked[run] = version, time.monotonic() + (_RETRY_SECONDS if pending else float("inf"))
        if is_delivered_elsewhere:
            self._skip_delivered_elsewhere(run)
        elif pending:
            self._threads[run] = threading.Thread(target=self._deliver, args=(run,), name=str(run), daemon=True)
            self._threads[run].start()

    def _deliver(self, run: Path) -> None:
        if run not in self._failed:
            self._print(f"{run}: delivering")
        control = ControlReader(run)
        try:
            deliver(run, lambda _: self._stop.is_set() or control.is_handover_requested())
            pending = backlog(run, Manifest.load(run))
            self._print(f"{run}: {read_status(run)}, " + ("; ".join(map(str, pending)) or "all events delivered"))
            self._failed.discard(run)
            self._delivered_elsewhere.discard(run)
        except LockedError:
            self._skip_delivered_elsewhere(run)
        except Exception as error:  # must not stop the delivery of other runs
            self._failed.add(run)
            self._warn_once(f"{run}: {error}")

    def _skip_delivered_elsewhere(self, run: Path) -> None:
        if run not in self._delivered_elsewhere:
            self._delivered_elsewhere.add(run)
            self._print(f"{run}: another process delivers this run")

    def _warn_once(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            _logger.warning("%s", line)


def _run_version(run: Path) -> _RunVersion:
    try:
        size = (run / JOURNAL).stat().st_size
    except FileNotFoundError:
        size = 0
    return size, mtime_ns(run / MANIFEST)
