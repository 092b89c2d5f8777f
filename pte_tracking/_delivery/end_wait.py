"""Wait for the delivery of a run at its end, and report what is pending."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from pte_tracking._delivery.backlog import SinkBacklog, backlog, have_closed_since
from pte_tracking._delivery.control import request_retry
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.supervisor import DeliverySupervisor
from pte_tracking._delivery.wait_display import WaitDisplay
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK, DELIVERY_LOG, PREVIOUS
from pte_tracking._store.manifest import Manifest, RunNotFoundError
from pte_tracking._store.signal_errors import raise_from_signal_handler

_logger = logging.getLogger("pte_tracking")
_POLL_SECONDS, _CHECK_SECONDS = 0.02, 2.0
#: For a process to begin with the delivery, before the report states whether one delivers.
_MAX_START_SECONDS, _MAX_INTERRUPTED_START_SECONDS = 1.0, 0.2
_MAX_REPEATED_WARNINGS = 5
_IN_BACKGROUND = "Delivery continues in the background. If this machine shuts down first"
_NOBODY = "No process delivers the rest. To deliver it"

#: Whether the user interrupted the last wait. The waits of other runs end, too, until another run starts.
_is_interrupted = False


class EndWait:
    """Waits at the end of a run until it is delivered.

    Args:
        supervisor: Supervisor of the run.
        run_id: ID of the run. Another run may be in the directory when the process ends.
    """

    def __init__(self, supervisor: DeliverySupervisor, run_id: str) -> None:
        global _is_interrupted
        _is_interrupted = False
        self._supervisor = supervisor
        self._directory = supervisor.directory
        self._run_id = run_id
        self._log_start = _size(self._directory / DELIVERY_LOG)

    def wait(self, timeout: float) -> None:
        """Wait until all events are delivered. Log the pending events otherwise.

        Args:
            timeout: Maximum time to wait, in seconds. Delivery continues in the background.
        """
        if not self._supervisor.place.is_current():
            return
        try:
            if self._is_archived():
                self._report_archived()
            else:
                self._wait(0.0 if _is_interrupted else timeout)
        except (OSError, RunNotFoundError) as error:
            raise_from_signal_handler(error)
            _logger.error("%s: cannot determine the pending events: %s", self._directory, error)

    def is_over(self) -> bool:
        """Whether all events are delivered, or the directory was moved or deleted."""
        try:
            if not self._supervisor.place.is_current():
                return True
            directory = self._archive if self._is_archived() else self._directory
            return not backlog(directory, Manifest.load(directory))
        except (OSError, RunNotFoundError):
            return True

    @property
    def _archive(self) -> Path:
        return self._directory / PREVIOUS / self._run_id

    def _is_archived(self) -> bool:
        return Manifest.load(self._directory).id != self._run_id

    def _report_archived(self) -> None:
        """Log the pending events of a run that a later run in its directory has archived."""
        if pending := backlog(self._archive, Manifest.load(self._archive)):
            is_delivered = lock.is_held(self._archive / DELIVERY_LOCK)
            self._report(pending, _IN_BACKGROUND if is_delivered else _NOBODY, self._archive)

    def _wait(self, timeout: float) -> None:
        global _is_interrupted
        request_time = time.time()
        request_retry(self._directory)
        manifest = Manifest.load(self._directory)
        pending = backlog(self._directory, manifest)
        display, start = WaitDisplay(), time.monotonic()
        next_check = start
        try:
            while (now := time.monotonic()) < start + timeout and not have_closed_since(
                self._directory, pending, request_time
            ):
                if now >= next_check:
                    next_check = now + _CHECK_SECONDS
                    display.clear()
                    self._supervisor.ensure_running_now()
                display.show(pending, start + timeout - now, self._find_activities(pending))
                time.sleep(_POLL_SECONDS)
                pending = backlog(self._directory, manifest)
        except BaseException:
            _is_interrupted = True
            raise
        finally:  # also after Ctrl-C
            display.clear()
            self._supervisor.announcer.announce()
            if pending:
                self._report(pending, self._describe_delivery(pending, manifest), self._directory)
            self._repeat_warnings([sink.reason for sink in pending if sink.reason])

    def _find_activities(self, pending: list[SinkBacklog]) -> dict[str, str]:
        """Return what sinks that have received nothing yet are doing, such as to create a database, by key."""
        keys = [s.key for s in pending if not s.reason and not Cursor.load(self._directory, s.key).seq]
        messages = dict(line.split(": ", 1) for line in self._read_messages("INFO") if ": " in line)
        return {key: messages.get(key, "connecting") for key in keys}

    def _describe_delivery(self, pending: list[SinkBacklog], manifest: Manifest) -> str:
        """Describe whether a process delivers the pending events."""
        if not all(sink.is_closed for sink in pending):
            if self._begin_delivery(manifest):
                return _IN_BACKGROUND
            if self._supervisor.has_process and not self._supervisor.has_failed:
                return "A delivery process is starting. If it does not deliver the rest"
        return _NOBODY

    @staticmethod
    def _report(pending: list[SinkBacklog], delivery: str, directory: Path) -> None:
        _logger.warning(
            "Not yet delivered: %s. %s%s, run: pte-tracking sync %s",
            "; ".join(map(str, pending)),
            "The wait was interrupted. " if _is_interrupted else "",
            delivery,
            directory,
        )

    def _begin_delivery(self, manifest: Manifest) -> bool:
        """Start a process if none delivers the run. Return whether one delivers it, or has just delivered it."""
        end = time.monotonic() + (_MAX_INTERRUPTED_START_SECONDS if _is_interrupted else _MAX_START_SECONDS)
        if not self._supervisor.is_delivered:
            self._supervisor.ensure_running_now()
        while not (is_delivered := self._supervisor.is_delivered) and time.monotonic() < end:
            if not self._supervisor.has_process:
                break
            time.sleep(_POLL_SECONDS)
        return is_delivered or not backlog(self._directory, manifest)

    def _repeat_warnings(self, reported: list[str]) -> None:
        """Log the warnings that the delivery process logged in this session.

        Args:
            reported: Errors that are already reported. Lines that contain them are skipped.
        """
        messages = self._read_messages("WARNING", "ERROR")
        lines = [line for line in messages if not any(reason in line for reason in reported)]
        for line in lines[:_MAX_REPEATED_WARNINGS]:
            _logger.warning("delivery: %s", line)
        if len(lines) > _MAX_REPEATED_WARNINGS:
            path = self._directory / DELIVERY_LOG
            _logger.warning("delivery: more warnings in %s: %d", path, len(lines) - _MAX_REPEATED_WARNINGS)

    def _read_messages(self, *levels: str) -> list[str]:
        """Read the messages of some levels that the delivery process logged in this session."""
        path = self._directory / DELIVERY_LOG
        if _size(path) <= self._log_start:
            return []
        with open(path, errors="replace") as file:
            file.seek(self._log_start)
            # Further lines of a message have no level.
            texts = [line.partition(f" {level} ")[2].strip() for line in file for level in levels]
        return [text for text in texts if text]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
