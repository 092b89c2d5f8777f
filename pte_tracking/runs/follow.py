"""Deliver every run below a folder, as they grow: for machines that train without a way out.

They write to a file system that a login node shares, and that delivers, with one process for all of them. Who trains
and who delivers is told by locks of the file system, never by process numbers, which mean nothing on another machine.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from pte_tracking.runs.delivery import deliver
from pte_tracking.runs.files import modified
from pte_tracking.runs.layout import JOURNAL, MANIFEST
from pte_tracking.runs.lock import Locked
from pte_tracking.runs.manifest import Manifest, NotARun
from pte_tracking.runs.pending import pending, status
from pte_tracking.runs.summary import runs_below

_logger = logging.getLogger("pte_tracking")
_LOOK_EVERY = 2.0  # seconds between two looks for new runs and new events
_AGAIN_AFTER = 60.0  # seconds until a run is tried again of which something was left
_PATIENCE = 5.0  # seconds that the end waits for a request under way

#: What changes when there is something new: the size of the journal (times can be as coarse as a second on a shared
#: file system), and the time of the manifest, whose sinks may change.
_Mark = tuple[int, int]


def follow(folder: Path, say: Callable[[str], object]) -> None:
    """Deliver all runs below a folder until SIGINT or SIGTERM; what is left then is delivered next time.

    Args:
        folder: Where to look, with all folders below.
        say: Takes a line whenever a run is taken up, or done.
    """
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _Follower(folder.absolute(), say, stop).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Follower:
    def __init__(self, folder: Path, say: Callable[[str], object], stop: threading.Event) -> None:
        self._folder = folder
        self._say = say
        self._stop = stop
        self._threads: dict[Path, threading.Thread] = {}
        #: Runs of which nothing was left, or could not be delivered, at that mark and time.
        self._rested: dict[Path, tuple[_Mark, float]] = {}
        self._told: set[str] = set()

    def run(self) -> None:
        while not self._stop.is_set():
            self._threads = {run: thread for run, thread in self._threads.items() if thread.is_alive()}
            for run in runs_below(self._folder):
                if run not in self._threads and not self._is_at_rest(run):
                    self._take_up(run)
            self._stop.wait(_LOOK_EVERY)
        deadline = time.monotonic() + _PATIENCE
        for thread in self._threads.values():
            thread.join(max(deadline - time.monotonic(), 0))

    def _is_at_rest(self, run: Path) -> bool:
        if run not in self._rested:
            return False
        mark, until = self._rested[run]
        return time.monotonic() < until and _mark(run) == mark

    def _take_up(self, run: Path) -> None:
        mark = _mark(run)
        try:
            left = pending(run, Manifest.load(run))
            has_ended = status(run) != "RUNNING"
        except (NotARun, OSError) as error:
            self._tell(str(error))
            left, has_ended = [], True
        if left or has_ended:
            # One that has ended, with nothing left, is looked at again only when something in it changes.
            self._rested[run] = mark, time.monotonic() + (_AGAIN_AFTER if left else float("inf"))
        if left:
            self._threads[run] = threading.Thread(target=self._deliver, args=(run,), name=str(run), daemon=True)
            self._threads[run].start()

    def _deliver(self, run: Path) -> None:
        self._say(f"{run}: delivering")
        try:
            deliver(run, lambda _: self._stop.is_set())
            left = pending(run, Manifest.load(run))
            self._say(f"{run}: {status(run)}, " + ("; ".join(map(str, left)) or "everything is delivered"))
        except Locked:
            self._say(f"{run}: another process delivers it")
        except Exception as error:  # the other runs go on
            self._tell(f"{run}: {error}")

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            _logger.warning("%s", line)


def _mark(run: Path) -> _Mark:
    journal = run / JOURNAL
    return journal.stat().st_size if journal.exists() else 0, modified(run / MANIFEST)
