"""Sampling of system metrics while a training process is alive.

The delivery process samples the node of the process that writes the run, in a thread, so that a training that hangs is
sampled, too. On each further node, a training process starts this module as a program, which ends with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from pte_tracking._delivery.cursor import describe_error
from pte_tracking._delivery.machine import Machine
from pte_tracking._platform.processes import lower_process_priority
from pte_tracking._store import lock
from pte_tracking._store.events import RunStarted
from pte_tracking._store.journal_reader import find_events
from pte_tracking._store.layout import JOURNAL, WRITER_LOCK
from pte_tracking._store.lock import LockedError
from pte_tracking._store.manifest import Manifest, RunNotFoundError, Sampling
from pte_tracking._store.place import Place
from pte_tracking._store.samples import PREFIX, SampleWriter, node_name, read_samples

_logger = logging.getLogger("pte_tracking")
_POLL_SECONDS = 0.2
_FIRST_SECONDS = 1.0  # until the first sample
_MAX_LOCK_SECONDS = 5.0  # for the sampler of an earlier training process to end
_MAX_READ_SECONDS = 30.0  # for the metrics of the machine
_MAX_START_SECONDS = 60.0  # for a shared file system to show the run to another node


class SamplerThread:
    """Thread that samples this node while the training process runs that requested it here.

    Args:
        directory: Absolute path of the run directory.
        run_thread: Starts a daemon thread that calls the given function.
    """

    def __init__(self, directory: Path, run_thread: Callable[[Callable[[], None]], threading.Thread]) -> None:
        self._directory = directory
        self._run_thread = run_thread
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._poll_time = 0.0

    @property
    def is_running(self) -> bool:
        """Whether samples may follow. False if a driver does not respond, so that nothing waits for it."""
        is_alive = self._thread is not None and self._thread.is_alive()
        return is_alive and time.monotonic() - self._poll_time < _MAX_READ_SECONDS

    def start(self, manifest: Manifest) -> None:
        """Start to sample if the manifest contains a request, unless it is fulfilled."""
        request = manifest.sampling
        if request is not None and not self.is_running:
            self._poll_time = time.monotonic()
            self._thread = self._run_thread(lambda: self._sample(request))

    def stop(self, timeout: float) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _sample(self, request: Sampling) -> None:
        holder = lock.holder(self._directory / WRITER_LOCK)
        # A short training ends its run before the process that it started delivers it, and waits for this process.
        if holder is None and os.getppid() == request.pids[0] and not self._has_sample():
            sample_until(lambda: self._stop.wait(_POLL_SECONDS) or True, self._directory, request)
            return
        # Neither the request of an earlier training process, nor that of another machine, such as for a login node.
        if holder is None or holder.pid != request.pids[0] or not holder.is_local_process():
            return

        def should_stop() -> bool:
            self._poll_time = time.monotonic()
            return (
                self._stop.wait(min(_POLL_SECONDS, request.interval))
                or lock.holder(self._directory / WRITER_LOCK) != holder
            )

        sample_until(should_stop, self._directory, request)

    def _has_sample(self) -> bool:
        """Whether there is a sample since the last start of the run."""
        start_time = max((event.time for event, _ in find_events(self._directory / JOURNAL, RunStarted)), default=0.0)
        samples = read_samples(self._directory, {})
        return any(event.time >= start_time for part in samples for event in part.events)


def sample_until(should_stop: Callable[[], bool], directory: Path, request: Sampling) -> None:
    """Append samples of this node, at least one. Errors are logged, and those of the disk or the lock end the sampling.

    Args:
        should_stop: Called between two samples. It waits for a fraction of a second. If it returns True before the
            first sample, one is taken, so that a short training has one.
        directory: The run directory.
        request: The request.
    """
    try:
        machine = Machine(directory, request.pids)
        place, writer = Place(directory), SampleWriter(directory, node_name(), _MAX_LOCK_SECONDS)
    except (ImportError, LockedError, OSError) as error:
        _logger.error("%s: no system metrics are sampled: %s", directory, describe_error(error))
        return
    prefix = PREFIX + (f"{request.node}/" if request.node else "")
    next_time, logged_error = time.monotonic() + min(request.interval, _FIRST_SECONDS), ""
    has_sample = is_over = False
    with contextlib.closing(writer):
        while not is_over:
            is_over = should_stop()
            if not place.is_current():
                return
            if has_sample if is_over else time.monotonic() < next_time:
                continue
            next_time = time.monotonic() + request.interval
            try:
                writer.append({f"{prefix}{key}": value for key, value in machine.read().items()})
                has_sample, logged_error = True, ""
            except Exception as error:  # such as a full disk
                if (description := describe_error(error)) != logged_error:
                    logged_error = description
                    _logger.warning("%s: system metrics were not sampled, retrying: %s", directory, description)


def main() -> None:
    """Sample this node for a training process of another rank than 0, until that process ends.

    The arguments are the run directory, the ID of the run, and the request as JSON.
    """
    lower_process_priority()
    directory, request = Path(sys.argv[1]), msgspec.json.decode(sys.argv[3], type=Sampling)

    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))

    def has_parent_ended() -> bool:
        time.sleep(_POLL_SECONDS)
        return bool(signals) or os.getppid() != request.pids[0]

    deadline = time.monotonic() + _MAX_START_SECONDS
    while not _contains_run(directory, sys.argv[2]):
        if has_parent_ended():
            return
        if time.monotonic() > deadline:
            _logger.error(
                "%s: this node does not see the run, so its system metrics are not sampled. Choose a run directory on "
                "a file system that all nodes share.",
                directory,
            )
            return
    sample_until(has_parent_ended, directory, request)


def _contains_run(directory: Path, run_id: str) -> bool:
    try:
        return Manifest.load(directory).id == run_id
    except (RunNotFoundError, OSError):
        return False


if __name__ == "__main__":
    main()
