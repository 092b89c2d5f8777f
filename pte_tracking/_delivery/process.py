"""Carries the journal of a run to its sinks: the delivery process, and ``pte-tracking sync`` in the foreground.

One thread and one saved position for each sink, so that a dead server delays no other sink. Whoever delivers holds the
lock ``delivery/lock``. No torch is imported.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pte_tracking._delivery.consumer import Channel
from pte_tracking._delivery.throttle import Pace
from pte_tracking._store.files import mtime_ns
from pte_tracking._store.layout import DELIVERY, DELIVERY_LOCK, MANIFEST, RELIEF, WAKE
from pte_tracking._store.lock import Lock, LockedError
from pte_tracking._store.manifest import Manifest, RunNotFoundError
from pte_tracking._store.status import read_status

_logger = logging.getLogger("pte_tracking")
_POLL = 0.2  # seconds between two looks at the journal: a stat and a lock call
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds between attempts while a backend is away, at most


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
        self._pace = Pace()

    def run(self, is_enough: Callable[[float], bool] = lambda _: False) -> None:
        """Deliver until the run has ended and nothing is left, or until it is enough.

        Args:
            is_enough: Asked now and then, with the seconds since something was delivered last.
        """
        seen = None
        try:
            while not is_enough(time.monotonic() - self._moved):
                changed = mtime_ns(self._directory / MANIFEST)
                if changed != seen or self._is_left_behind():
                    self._start_threads()
                    seen = changed
                if not any(thread.is_alive() for thread in self._threads.values()):
                    return
                time.sleep(_POLL / 2)
        finally:  # also where the run was removed: no thread goes on trying for ever
            self._stop.set()
            for key, thread in self._threads.items():
                thread.join(_POLL * 2)
                if thread.is_alive():  # in a request that nobody answers
                    self._channels[key].abandon()

    def _is_left_behind(self) -> bool:
        """Whether a sink is done with a run that goes on: a new trainer came just as its thread ended."""
        ended = [key for key, thread in self._threads.items() if not thread.is_alive()]
        return not all(self._channels[key].is_closed for key in ended) and read_status(self._directory) == "RUNNING"

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
            called = mtime_ns(self._directory / WAKE)
            try:
                # Asked before the journal is read: a trainer that is gone by then writes no more.
                ending = read_status(self._directory)
                began = time.monotonic()
                if channel.pump():
                    self._moved = time.monotonic()
                    pause = _FIRST_PAUSE
                    if ending == "RUNNING":
                        self._rest(max(self._pace.pause(self._moved - began), channel.rest), called)
                elif ending != "RUNNING":
                    channel.finish(ending)
                    return
                else:
                    time.sleep(_POLL)
            except Exception as error:
                channel.failed(error)
                # Of a thousand runs that a server has dropped at one moment, no two come back at another.
                self._rest(random.uniform(0, pause), called)
                pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            channel.finish(None)
        except Exception as error:
            channel.failed(error)

    def _rest(self, seconds: float, called: int) -> None:
        """Wait, unless somebody wakes us, or has done so since the time ``called``."""
        path = self._directory / WAKE
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._stop.is_set() and mtime_ns(path) == called:
            time.sleep(min(_POLL, left))


def deliver(directory: Path, is_enough: Callable[[float], bool] = lambda _: False) -> None:
    """Deliver a run, as the only one who does.

    Args:
        directory: The run's directory.
        is_enough: See :meth:`Delivery.run`.

    Raises:
        LockedError: A living process delivers it already.
        RunNotFoundError: There is no run.
    """
    directory = directory.absolute()
    if not (directory / DELIVERY).is_dir():
        raise RunNotFoundError(f"{directory}: no run here")
    held = Lock(directory / DELIVERY_LOCK, timeout=0.1)
    try:
        Delivery(directory).run(is_enough)
    finally:
        held.release()


def relief(directory: Path) -> Callable[[float], bool]:
    """Tells whether somebody has asked, from now on, that the run be left to others; for :func:`deliver`."""
    begun_with = mtime_ns(directory / RELIEF)
    return lambda _: mtime_ns(directory / RELIEF) != begun_with


def main() -> int:
    """The delivery process."""
    os.nice(10)  # training comes first
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    directory = Path(sys.argv[1])
    is_enough = relief(directory)  # asked for while we wait for the lock, it counts
    try:
        deliver(directory, is_enough)
    except LockedError:
        return 0
    except (RunNotFoundError, FileNotFoundError) as error:  # it was moved or deleted
        _logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
