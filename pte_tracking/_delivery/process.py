"""The delivery process, which delivers the runs of the process that started it.

The directories of the runs arrive on standard input, each followed by a null byte. Each run has its own threads, lock,
cursors, and log, so an unavailable server of one run does not delay the others. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path

from pte_tracking._delivery.backoff import Backoff
from pte_tracking._delivery.control import ControlReader
from pte_tracking._delivery.cursor import describe_error
from pte_tracking._delivery.delivery_environment import DONE_STATUS
from pte_tracking._delivery.delivery_loop import deliver
from pte_tracking._delivery.garbage import collect_garbage_rarely, skip_last_collection
from pte_tracking._delivery.give_up import MAX_FAILING_SECONDS, GiveUpTimer
from pte_tracking._delivery.run_log import configure_run_logs, logging_to_run
from pte_tracking._platform.processes import lower_process_priority, raise_file_limit, wait_for_input
from pte_tracking._store.lock import LockedError
from pte_tracking._store.manifest import RunNotFoundError

_logger = logging.getLogger("pte_tracking")
_POLL_SECONDS = 0.2
_IDLE_SECONDS = 2.0  # without runs, after which the process ends; the next run of a sweep starts earlier
_MAX_LOCK_SECONDS = 5.0  # for another process to release a run
_READ_BYTES = 65536


class DeliveryService:
    """Delivers runs until there are none.

    Args:
        requests: Descriptor from which the directories of further runs are read.
        max_failing_seconds: Time without success after the end of a run, after which its delivery ends.
    """

    def __init__(self, requests: int, max_failing_seconds: float = MAX_FAILING_SECONDS) -> None:
        self._requests: int | None = requests
        self._max_failing_seconds = max_failing_seconds
        self._unread = b""
        self._threads: dict[Path, threading.Thread] = {}
        #: Runs whose delivery is to start, possibly after an earlier one that is about to end. A handover that is
        #: requested meanwhile revokes the request.
        self._requested: dict[Path, ControlReader] = {}

    def run(self, directories: list[Path]) -> None:
        """Deliver runs until all are delivered, and no further run is requested for a while.

        Args:
            directories: Run directories.
        """
        self._request(directories)
        last_active = time.monotonic()
        while True:
            self._request(self._read_requests())
            if self._threads or self._requested:
                last_active = time.monotonic()
            elif self._requests is None or time.monotonic() - last_active > _IDLE_SECONDS:
                return

    def _request(self, directories: list[Path]) -> None:
        """Start the delivery of runs as soon as their earlier deliveries have ended."""
        self._requested |= {directory: ControlReader(directory) for directory in directories}
        self._threads = {directory: thread for directory, thread in self._threads.items() if thread.is_alive()}
        for directory, control in list(self._requested.items()):
            if control.is_handover_requested():
                self._requested.pop(directory, None)
                continue
            if directory in self._threads:
                continue
            # A daemon thread, because a thread that waits for a response must not keep the process alive.
            thread = threading.Thread(target=self._deliver, args=(directory, control), name=str(directory), daemon=True)
            with contextlib.suppress(RuntimeError):  # too many threads; the next attempt follows
                thread.start()
                self._threads[directory] = thread
                self._requested.pop(directory, None)

    def _read_requests(self) -> list[Path]:
        """Return the requested directories after a short wait. The end of the requests closes the descriptor."""
        if self._requests is None:
            time.sleep(_POLL_SECONDS)
            return []
        if not wait_for_input(self._requests, _POLL_SECONDS):
            return []
        received = os.read(self._requests, _READ_BYTES)
        if not received:
            self._requests = None
        *complete, self._unread = (self._unread + received).split(b"\0")
        return [Path(os.fsdecode(name)) for name in complete]

    def _deliver(self, directory: Path, control: ControlReader) -> None:
        backoff = Backoff()
        while not control.is_handover_requested():
            try:
                with logging_to_run(directory):
                    self._deliver_once(directory, control)
                return
            except Exception as error:  # such as too many open files
                _logger.error("%s: %s", directory, describe_error(error))
                if not directory.exists():
                    return
                time.sleep(backoff.next_pause_seconds())

    def _deliver_once(self, directory: Path, control: ControlReader) -> None:
        timer = GiveUpTimer(directory, self._max_failing_seconds)
        deadline = time.monotonic() + _MAX_LOCK_SECONDS
        while time.monotonic() < deadline:
            try:
                deliver(directory, lambda idle: control.is_handover_requested() or timer.is_over(idle))
            except LockedError:  # another process delivers the run, and may be about to release it
                time.sleep(_POLL_SECONDS)
                continue
            except RunNotFoundError as error:
                _logger.error("%s", error)
            if timer.has_ended:  # an earlier request must not start the delivery again
                self._requested.pop(directory, None)
            return


def main() -> None:
    """Run the delivery process. Its arguments are the directories of the first runs."""
    lower_process_priority()  # the training has priority
    collect_garbage_rarely()
    with contextlib.suppress(OSError, ValueError):  # each run holds a few files open
        raise_file_limit()
    configure_run_logs()
    DeliveryService(sys.stdin.fileno()).run([Path(name) for name in sys.argv[1:]])
    sys.stdin.close()  # before the interpreter ends, so that the training process starts another process at once
    skip_last_collection()
    sys.exit(DONE_STATUS)


if __name__ == "__main__":
    main()
