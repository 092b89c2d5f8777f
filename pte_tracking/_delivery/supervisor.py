"""Start, monitor and stop the delivery process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from pathlib import Path

from pte_tracking._delivery.backlog import SinkBacklog, backlog, have_closed_since
from pte_tracking._delivery.control import request_handover, request_retry
from pte_tracking._delivery.credentials import read_credentials
from pte_tracking._delivery.locations import Announcer
from pte_tracking._store import lock
from pte_tracking._store.interpreter import python_command
from pte_tracking._store.layout import DELIVERY_LOCK, DELIVERY_LOG
from pte_tracking._store.manifest import Manifest, RunNotFoundError
from pte_tracking._store.owned_files import open_owned
from pte_tracking._store.place import Place
from pte_tracking._store.signal_errors import raise_from_signal_handler

_logger = logging.getLogger("pte_tracking")
_CHECK_SECONDS = 2.0  # between two checks that the delivery process is alive
_HANDOVER_CHECK_SECONDS = 0.5  # until the first check after a request for a handover
_MAX_RESTART_SECONDS = 60.0  # between two restarts
_MAX_REPEATED_WARNINGS = 5
_FIRST_REPORT_SECONDS, _REPORT_SECONDS = 2.0, 5.0  # until the first message while waiting for delivery, and the next
#: Time within which a process hands over a run. Over NFS, a process on another machine may see the request after a
#: minute.
_LOCAL_STOP_SECONDS, _REMOTE_STOP_SECONDS = 5.0, 90.0

#: Delivery processes of this process, which may outlive their runs. Polling the ended ones removes zombies.
_children: list[subprocess.Popen[bytes]] = []


class DeliverySupervisor:
    """Keeps a delivery process alive for a run directory.

    Args:
        directory: The run directory.
        place: Identity of the directory. If the directory is moved, no process is started for its path.

    Attributes:
        check_time: Time of the last :meth:`ensure_running`, in seconds since the Unix epoch. An earlier time means that
            the clock was set back.
        next_check_time: Time of the next :meth:`ensure_running`, in seconds since the Unix epoch.
    """

    def __init__(self, directory: Path, place: Place) -> None:
        self._directory = directory
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        #: Credentials in the environment of the delivery process.
        self._credentials: dict[str, str] = {}
        self.check_time = self.next_check_time = 0.0
        #: Failure of the last check, which is logged once.
        self._logged_error = ""
        self._log_start = _size(directory / DELIVERY_LOG)
        self._announcer = Announcer(directory)

    def ensure_running(self) -> None:
        """Start a delivery process if none delivers the run. A failure is logged."""
        self.check_time = time.time()
        self.next_check_time = self.check_time + _CHECK_SECONDS
        if not self._place.is_current():
            return
        try:
            self._start_if_needed()
            self._logged_error = ""
        except OSError as error:  # such as too many open files
            raise_from_signal_handler(error)
            if str(error) != self._logged_error:
                self._logged_error = str(error)
                _logger.error("%s: cannot start the delivery process: %s", self._directory, error)

    def _start_if_needed(self) -> None:
        self._announcer.announce()
        if self._is_running():
            self._renew_credentials()
            return
        if lock.is_held(self._directory / DELIVERY_LOCK):
            return  # a delivery process of an earlier training process continues with this one
        if self._starts > 1:
            self.next_check_time = self.check_time + min(2.0**self._starts, _MAX_RESTART_SECONDS)
            _logger.warning("%s: the delivery process ended, restarting", self._directory)
        self._credentials = read_credentials()
        self._process = spawn_delivery(self._directory)
        self._starts += 1

    def _renew_credentials(self) -> None:
        """Replace the delivery process if the training process has other credentials now."""
        if read_credentials() == self._credentials:
            return
        self._credentials = read_credentials()
        self._starts = 0  # the end of the process is no failure
        self.next_check_time = time.time() + _HANDOVER_CHECK_SECONDS
        request_handover(self._directory)

    def wait(self, timeout: float) -> None:
        """Wait until all events are delivered. Log the pending events otherwise.

        Args:
            timeout: Maximum time to wait, in seconds. Delivery continues in the background.
        """
        if not self._place.is_current():
            return
        try:
            self._wait_for_delivery(timeout)
        except (OSError, RunNotFoundError) as error:
            raise_from_signal_handler(error)
            _logger.error("%s: cannot determine the pending events: %s", self._directory, error)

    def _wait_for_delivery(self, timeout: float) -> None:
        request_time = time.time()
        request_retry(self._directory)
        start = time.monotonic()
        next_report = start + _FIRST_REPORT_SECONDS
        manifest = Manifest.load(self._directory)
        pending = backlog(self._directory, manifest)
        if pending:
            self._starts = 0  # the end does not wait for the pause before the next restart
            self.ensure_running()
        try:
            while (now := time.monotonic()) < start + timeout and not have_closed_since(
                self._directory, pending, request_time
            ):
                if not self.check_time <= time.time() <= self.next_check_time:
                    self.ensure_running()
                if now >= next_report:
                    next_report = now + _REPORT_SECONDS
                    _logger.info(
                        "Waiting up to %.0f s for delivery: %s", start + timeout - now, "; ".join(map(str, pending))
                    )
                time.sleep(0.02)
                pending = backlog(self._directory, manifest)
        finally:  # also after Ctrl-C
            self._announcer.announce()
            self._report_backlog(pending)

    def _report_backlog(self, pending: list[SinkBacklog]) -> None:
        if pending:
            _logger.warning(
                "Not yet delivered: %s. %s, run: pte-tracking sync %s",
                "; ".join(map(str, pending)),
                "Delivery continues in the background. If this machine shuts down first"
                if lock.is_held(self._directory / DELIVERY_LOCK) or self._is_running()
                else "No process delivers the rest. To deliver it",
                self._directory,
            )
        self._repeat_warnings([sink.reason for sink in pending if sink.reason])
        if self._process is not None and self._is_running():
            self._process.returncode = 0  # prevents a ResourceWarning for a process that is meant to continue

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _repeat_warnings(self, reported: list[str]) -> None:
        """Log the warnings that the delivery process logged in this session.

        Args:
            reported: Errors that are already reported. Lines that contain them are skipped.
        """
        path = self._directory / DELIVERY_LOG
        if _size(path) <= self._log_start:
            return
        with open(path, errors="replace") as file:
            file.seek(self._log_start)
            lines = [line.partition(" WARNING ")[2] or line.partition(" ERROR ")[2] for line in file]
            lines = [line.strip() for line in lines if line and not any(reason in line for reason in reported)]
        for line in lines[:_MAX_REPEATED_WARNINGS]:
            _logger.warning("delivery: %s", line)
        if len(lines) > _MAX_REPEATED_WARNINGS:
            _logger.warning("delivery: more warnings in %s: %d", path, len(lines) - _MAX_REPEATED_WARNINGS)


def spawn_delivery(directory: Path) -> subprocess.Popen[bytes]:
    """Start a delivery process for a run. It outlives this process.

    Args:
        directory: The run directory.

    Returns:
        The process.

    Raises:
        OSError: If the process cannot be started.
    """
    _children[:] = [process for process in _children if process.poll() is None]
    with os.fdopen(open_owned(directory / DELIVERY_LOG, directory, os.O_APPEND), "ab") as log:
        process = subprocess.Popen(
            [*python_command("pte_tracking._delivery.process"), str(directory)],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _children.append(process)
    return process


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # Files in the current directory may have the name of a module.
    environment["PYTHONSAFEPATH"] = "1"
    # Warnings of client libraries, turned into errors for the user's own code, would end the delivery.
    environment.pop("PYTHONWARNINGS", None)
    return environment


def is_delivery_enabled() -> bool:
    """Whether this machine starts delivery processes. ``PTE_TRACKING_DELIVERY=off`` leaves delivery to another one."""
    return os.environ.get("PTE_TRACKING_DELIVERY") != "off"


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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
