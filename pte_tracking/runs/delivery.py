"""Carries the journal of a run to its sinks: the delivery process, and ``pte-tracking sync`` in the foreground.

One thread and one saved position for each sink, so that a dead server delays no other sink. Whoever delivers holds the lock
``delivery/lock``. No torch is imported.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
from pathlib import Path

from pte_tracking.runs import lock
from pte_tracking.runs.channel import FOLDER, Channel
from pte_tracking.runs.courier import LOCK_NAME, WAKE_NAME
from pte_tracking.runs.directory import LOCK_NAME as WRITER_LOCK_NAME
from pte_tracking.runs.events import RunEnded, Status
from pte_tracking.runs.journal import FILE_NAME as JOURNAL
from pte_tracking.runs.journal import last_event
from pte_tracking.runs.lock import Lock, Locked
from pte_tracking.runs.manifest import FILE_NAME as MANIFEST
from pte_tracking.runs.manifest import Manifest

_logger = logging.getLogger("pte_tracking")
_POLL = 0.2  # seconds between two looks at the journal: a stat and a lock call
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts while a backend is away


class Delivery:
    """Delivers one run.

    Args:
        directory: The run's directory, absolute.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._channels: dict[str, Channel] = {}
        self._moved = time.monotonic()

    def run(self, patience: float | None = None) -> None:
        """Deliver until the run has ended and nothing is left.

        Args:
            patience: Give up after so many seconds without progress; None goes on for ever.
        """
        seen = None
        while not self._stop.is_set():
            changed = _modified(self._directory / MANIFEST)
            if changed != seen:
                self._start_threads()
                seen = changed
            if not any(thread.is_alive() for thread in self._threads.values()):
                return
            if patience is not None and time.monotonic() - self._moved > patience:
                return
            time.sleep(_POLL / 2)

    def stop(self) -> None:
        """Let every thread end after what it is doing."""
        self._stop.set()

    def _start_threads(self) -> None:
        manifest = Manifest.load(self._directory)
        for entry in manifest.sinks:
            thread = self._threads.get(entry.key)
            if thread is not None and thread.is_alive():
                continue
            try:
                channel = Channel(self._directory, manifest, entry)
            except (ValueError, TypeError) as error:
                _logger.error("%s: %s", entry.key, error)
                continue
            if channel.is_inline:
                continue
            self._channels[entry.key] = channel
            # A daemon: a thread that hangs in a dead server's answer must not keep the process.
            self._threads[entry.key] = threading.Thread(
                target=self._carry, args=(channel,), name=f"deliver-{entry.key}", daemon=True
            )
            self._threads[entry.key].start()

    def _carry(self, channel: Channel) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set() and not channel.is_closed:
            try:
                # Asked before the journal is read: a trainer that is gone by then writes no more.
                status = self._ending()
                if channel.pump():
                    self._moved = time.monotonic()
                    pause = _FIRST_PAUSE
                elif status is not None:
                    channel.finish(status)
                    return
                else:
                    time.sleep(_POLL)
            except Exception as error:
                channel.failed(error)
                self._rest(pause * random.uniform(0.75, 1.25))
                pause = min(2 * pause, _LONGEST_PAUSE)
        channel.finish(None)

    def _ending(self) -> Status | None:
        """How the run ended; None while its trainer lives."""
        if lock.holder(self._directory / WRITER_LOCK_NAME):
            return None
        last = last_event(self._directory / JOURNAL)
        return last.status if isinstance(last, RunEnded) else "KILLED"

    def _rest(self, seconds: float) -> None:
        """Wait before the next attempt, unless somebody wakes us."""
        path = self._directory / FOLDER / WAKE_NAME
        before, deadline = _modified(path), time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.is_set() and _modified(path) == before:
            time.sleep(_POLL)


def deliver(directory: Path, patience: float | None = None) -> None:
    """Deliver a run, as the only one who does.

    Args:
        directory: The run's directory.
        patience: Give up after so many seconds without progress; None goes on for ever.

    Raises:
        Locked: A living process delivers it already.
        NotARun: There is no run.
    """
    directory = directory.absolute()
    (directory / FOLDER).mkdir(exist_ok=True)
    held = Lock(directory / FOLDER / LOCK_NAME, patience=0.1)
    try:
        Delivery(directory).run(patience)
    finally:
        held.release()


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def main() -> int:
    """The delivery process."""
    os.nice(10)  # training comes first
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    try:
        deliver(Path(sys.argv[1]))
    except Locked:
        return 0
    except FileNotFoundError as error:
        _logger.error("the run's directory is gone: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
