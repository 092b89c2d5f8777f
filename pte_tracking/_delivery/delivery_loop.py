"""Delivery of one run to its sinks, in the delivery process and in ``pte-tracking sync``.

Each sink has its own thread and its own cursor, so an unavailable server does not delay other sinks. The process
that delivers a run holds the lock ``delivery/lock``.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pte_tracking._delivery.backoff import Backoff, RetrySchedule
from pte_tracking._delivery.batch import Delivered
from pte_tracking._delivery.control import ControlReader
from pte_tracking._delivery.cursor import describe_error
from pte_tracking._delivery.sample_consumer import SampleConsumer
from pte_tracking._delivery.sampler import SamplerThread
from pte_tracking._delivery.throttle import Throttle, request_interval
from pte_tracking._store.events import Status
from pte_tracking._store.files import mtime_ns
from pte_tracking._store.layout import DELIVERY, DELIVERY_LOCK, JOURNAL, MANIFEST
from pte_tracking._store.lock import Lock, LockedError
from pte_tracking._store.manifest import Manifest, RunNotFoundError
from pte_tracking._store.place import Place
from pte_tracking._store.status import read_status

_logger = logging.getLogger("pte_tracking")
_POLL_SECONDS = 0.2  # between two checks of the journal, each of which is a stat and a lock call
_MAX_POLL_SECONDS = 2.0
_FAST_POLL_THREADS = 50  # in this process, above which the checks become rarer
_MAX_POSTPONED_SECONDS = 5.0  # for postponed files, before new events are delivered


class DeliveryLoop:
    """Delivers one run to all its sinks.

    Args:
        directory: Absolute path of the run directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._place = Place(directory)
        self._control = ControlReader(directory)
        self._stop = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._consumers: dict[str, SampleConsumer] = {}
        self._sampler = SamplerThread(directory, self._start_thread)
        self._last_delivery = time.monotonic()
        self._throttle = Throttle()

    def run(self, should_stop: Callable[[float], bool] = lambda _: False) -> None:
        """Deliver until the run has ended and all events are delivered, or until ``should_stop`` returns true.

        Args:
            should_stop: Called several times per second with the number of seconds since the last delivered batch.

        Raises:
            RunNotFoundError: If the directory was moved, replaced, or deleted.
        """
        started_for = None
        try:
            while not should_stop(time.monotonic() - self._last_delivery):
                if not self._place.is_current():  # another run may be in the directory now
                    for consumer in self._consumers.values():
                        consumer.abandon()
                    raise RunNotFoundError(f"{self._directory}: moved, replaced or deleted while it was delivered")
                # A new sink and a request for a retry start the threads of sinks that were closed, too.
                current = mtime_ns(self._directory / MANIFEST), self._control.read().retry
                if current != started_for or self._needs_restart():
                    self._start_threads()
                    started_for = current
                is_delivering = any(thread.is_alive() for thread in self._threads.values())
                if not is_delivering and not self._sampler.is_running and not self._waits_for_retry():
                    return
                time.sleep(_poll_seconds() / 2)
        finally:  # also if the run was removed, so that no thread retries indefinitely
            self._stop.set()
            self._sampler.stop(_POLL_SECONDS * 2)
            for key, thread in self._threads.items():
                thread.join(_POLL_SECONDS * 2)
                if thread.is_alive():  # the thread still waits for a response
                    self._consumers[key].abandon()

    def _needs_restart(self) -> bool:
        """Whether a thread ended although the run continues: a new training process started at that moment."""
        ended_keys = [key for key, thread in self._threads.items() if not thread.is_alive()]
        return (
            not all(self._consumers[key].is_closed for key in ended_keys) and read_status(self._directory) == "RUNNING"
        )

    def _waits_for_retry(self) -> bool:
        """Whether the run continues although a sink is closed. The end of this process would only be a new start."""
        is_closed = any(consumer.is_closed for consumer in self._consumers.values())
        return is_closed and read_status(self._directory) == "RUNNING"

    def _start_threads(self) -> None:
        manifest = Manifest.load(self._directory)
        self._sampler.start(manifest)
        for entry in manifest.sinks:
            thread = self._threads.get(entry.key)
            if thread is not None and (thread.is_alive() or self._is_complete(self._consumers[entry.key])):
                continue
            try:
                consumer = SampleConsumer(self._directory, manifest, entry)
            except (ValueError, TypeError) as error:
                _logger.error("%s: %s", entry.key, error)
                continue
            if consumer.is_inline:
                continue
            self._consumers[entry.key] = consumer
            self._threads[entry.key] = self._start_thread(functools.partial(self._deliver_sink, consumer), entry.key)

    def _is_complete(self, consumer: SampleConsumer) -> bool:
        """Whether a sink has received the run and its end.

        Another start would read the cursor from a directory that the training process may be deleting now, and without
        a cursor, all events would be delivered again.
        """
        cursor, size = consumer.cursor, (self._directory / JOURNAL).stat().st_size
        is_ended = cursor.end_status == read_status(self._directory)
        return is_ended and not consumer.is_closed and cursor.position >= size

    @staticmethod
    def _start_thread(function: Callable[[], None], name: str = "sample") -> threading.Thread:
        # A daemon thread, because a thread that waits for a response must not keep the process alive.
        # The context selects the log of the run.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(function,), name=f"deliver-{name}", daemon=True)
        thread.start()
        return thread

    def _deliver_sink(self, consumer: SampleConsumer) -> None:
        backoff, schedule, poll_schedule = Backoff(), RetrySchedule(), RetrySchedule()
        while not self._stop.is_set() and not consumer.is_closed:
            retries = self._control.read().retry
            try:
                # Read before the journal: a training process that ended by now writes nothing more.
                status, is_sampling = read_status(self._directory), self._sampler.is_running
                start_time = time.monotonic()
                delivered = consumer.deliver_next()
                self._retry_postponed(consumer, schedule, retries)
                if delivered is not None:
                    self._last_delivery = time.monotonic()
                    backoff.reset()
                    if status == "RUNNING":
                        if not delivered.batch.is_full:  # else more events are pending
                            self._poll_sink(consumer, status, poll_schedule, retries)
                        throttle_seconds = self._throttle.pause_seconds(self._last_delivery - start_time)
                        self._pause(max(throttle_seconds, _request_pause(consumer, delivered)), retries)
                elif not self._poll_sink(consumer, status, poll_schedule, retries):
                    self._pause(_poll_seconds(), retries)
                elif status != "RUNNING" and not is_sampling:
                    consumer.finish(status)
                    # Files may still be postponed, or the backend may have lost the run and needs all events again.
                    if consumer.cursor.end_status == status and not consumer.has_postponed:
                        return
                    self._pause(_poll_seconds(), retries)
                else:
                    time.sleep(_poll_seconds())
            except Exception as error:
                consumer.record_failure(error)
                self._pause(backoff.next_pause_seconds(), retries)
        try:
            consumer.finish(None)
        except Exception as error:
            consumer.record_failure(error)

    def _retry_postponed(self, consumer: SampleConsumer, schedule: RetrySchedule, retries: int) -> None:
        if not consumer.has_postponed or not schedule.is_due(retries):
            return
        count = len(consumer.cursor.postponed)
        has_succeeded = consumer.retry_postponed(_MAX_POSTPONED_SECONDS)
        schedule.record(retries, has_succeeded=has_succeeded)
        if has_succeeded or len(consumer.cursor.postponed) < count:
            self._last_delivery = time.monotonic()

    def _poll_sink(self, consumer: SampleConsumer, status: Status, schedule: RetrySchedule, retries: int) -> bool:
        """Poll a sink, or do nothing during the pause after a failure, in which new events are delivered.

        Returns:
            Whether the sink was polled, or need not be polled.
        """
        if not schedule.is_due(retries):
            return False
        try:
            while consumer.poll(status) and not self._stop.is_set():
                pass
        except Exception as error:
            consumer.record_failure(error)
            schedule.record(retries, has_succeeded=False)
            return False
        schedule.record(retries, has_succeeded=True)
        return True

    def _pause(self, seconds: float, retries: int) -> None:
        """Wait until the time is over, or until the number of retry requests is not ``retries``."""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0 and not self._stop.is_set():
            if self._control.read().retry != retries:
                return
            time.sleep(min(_poll_seconds(), remaining))


def _poll_seconds() -> float:
    """Return the time between two checks, which keeps the cost of a process with many runs constant."""
    return min(_POLL_SECONDS * max(1.0, threading.active_count() / _FAST_POLL_THREADS), _MAX_POLL_SECONDS)


def _request_pause(consumer: SampleConsumer, delivered: Delivered) -> float:
    """Return the seconds to wait after a batch, so that other runs can use the server of the sink."""
    if not consumer.uses_shared_server or delivered.batch.is_full:
        return 0.0
    return request_interval(delivered.seconds, is_metrics_only=delivered.batch.is_metrics_only)


def deliver(directory: Path, should_stop: Callable[[float], bool] = lambda _: False) -> None:
    """Deliver a run while holding its delivery lock.

    Args:
        directory: The run directory.
        should_stop: See :meth:`DeliveryLoop.run`.

    Raises:
        LockedError: If another process delivers the run.
        RunNotFoundError: If the directory contains no run, or was moved or deleted.
    """
    directory = directory.absolute()
    if not (directory / DELIVERY).is_dir():
        raise RunNotFoundError(f"{directory}: not a run directory (it contains no {DELIVERY}/)")
    lock = Lock(directory / DELIVERY_LOCK, timeout=0.1)
    try:
        DeliveryLoop(directory).run(should_stop)
    except FileNotFoundError as error:  # the directory was removed between two checks
        raise RunNotFoundError(f"{directory}: {error}") from error
    finally:
        lock.release()


def verify(directory: Path) -> None:
    """Open the backend of each sink once, to detect that it lost or deleted the run. Skip a run that is delivered now.

    Args:
        directory: The run directory.

    Raises:
        RunNotFoundError: If the directory contains no run.
    """
    manifest = Manifest.load(directory)
    try:
        lock = Lock(directory / DELIVERY_LOCK, timeout=0.1)
    except LockedError:
        return
    try:
        for entry in manifest.sinks:
            try:
                consumer = SampleConsumer(directory, manifest, entry)
                if not consumer.is_inline:
                    consumer.verify()
            except Exception as error:  # the sink is not installed, or its backend is not available
                _logger.warning("%s: not verified: %s", entry.key, describe_error(error))
    finally:
        lock.release()
