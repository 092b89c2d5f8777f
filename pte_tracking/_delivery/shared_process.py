"""Delivery processes of this process, each of which delivers all runs of one environment."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from pte_tracking._delivery.backlog import backlog, has_auth_error
from pte_tracking._delivery.control import request_handover
from pte_tracking._delivery.delivery_environment import DONE_STATUS, DeliveryEnvironment
from pte_tracking._platform.processes import BACKGROUND_OPTIONS, after_fork_in_child, make_nonblocking
from pte_tracking._store.layout import DELIVERY_LOG
from pte_tracking._store.manifest import Manifest, RunNotFoundError
from pte_tracking._store.owned_files import open_owned
from pte_tracking._store.signal_errors import raise_from_signal_handler
from pte_tracking._store.status import read_status

_logger = logging.getLogger("pte_tracking")
_MAX_RESTART_SECONDS = 60.0  # between two restarts
_STABLE_SECONDS = 600.0  # after which an earlier death of the process does not count
_CHECKED_RUNS = 2  # earlier runs to check whenever a run is added, so that the list of unfinished runs stays short


class SharedProcess:
    """Delivery process that is restarted if it dies, and its runs. It outlives this process.

    Args:
        environment: Environment of the process.

    Attributes:
        environment: Environment of the process.
    """

    def __init__(self, environment: DeliveryEnvironment) -> None:
        self.environment = environment
        #: Runs that may be unfinished, in the order in which they were checked.
        self._runs: dict[Path, None] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._unsent = b""
        self._failures = 0
        self._start_time = self._next_start_time = 0.0
        #: Exit status of the process that was logged. A repeated one is not logged again.
        self._logged_end: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_failed(self) -> bool:
        """Whether the process has died, and possibly been restarted."""
        return self._failures > 0

    @property
    def is_done(self) -> bool:
        """Whether all runs are delivered, and the process has ended."""
        return self._process is None and not self._runs

    def add(self, directory: Path) -> None:
        """Deliver a run. Start the process if needed, and not because of a pause after its death.

        Args:
            directory: The run directory.

        Raises:
            OSError: If the process cannot be started.
        """
        for run in list(self._runs)[:_CHECKED_RUNS]:
            del self._runs[run]
            if _is_unfinished(run):
                self._runs[run] = None
        self._runs[directory] = None
        if self._process is not None:
            self._unsent += os.fsencode(directory) + b"\0"
            self._send()
        elif time.monotonic() >= self._next_start_time:
            self._start()

    def remove(self, directory: Path) -> bool:
        """Forget a run that is moved, or that another process is going to deliver. Return whether it was known."""
        is_known = directory in self._runs
        self._runs.pop(directory, None)
        return is_known

    def take_refused_runs(self, environment: DeliveryEnvironment) -> list[Path]:
        """Release the runs whose backends refuse the credentials of this process.

        Args:
            environment: Environment with later credentials for the same servers. Others release nothing.

        Returns:
            Directories of the runs, which the process releases within seconds.
        """
        if environment.servers != self.environment.servers:
            return []
        refused = [run for run in self._runs if _is_refused(run)]
        for run in refused:
            self.remove(run)
            request_handover(run)
        return refused

    def check(self) -> None:
        """Restart the process with its unfinished runs if it died, after a pause that doubles with each death.

        Raises:
            OSError: If the process cannot be started.
        """
        if self.is_running:
            self._send()
            return
        if self._process is not None:
            self._note_end(self._process)
        if self._runs and time.monotonic() >= self._next_start_time:
            self._start()

    def end_pause(self) -> None:
        """Restart the process at the next check if it died."""
        self._next_start_time = 0.0

    def replace(self) -> None:
        """Start another process with the runs of a process that does not react. It keeps the runs that it delivers.

        Raises:
            OSError: If the process cannot be started.
        """
        if self._process is not None:
            _close_requests(self._process)
            _replaced[:] = [process for process in [*_replaced, self._process] if process.poll() is None]
            self._process = None
            self._start()

    def leave(self) -> None:
        """Leave the process to itself. It ends when its runs are delivered."""
        if self._process is not None:
            _close_requests(self._process)
            if self._process.poll() is None:
                self._process.returncode = 0  # prevents a ResourceWarning for a process that is meant to continue

    def leave_in_child(self) -> None:
        """Close the descriptor in a forked child, so that the process notices the end of its parent."""
        if self._process is not None:
            _close_requests(self._process)
            self._process.returncode = 0

    def _note_end(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        _close_requests(process)
        if process.returncode == DONE_STATUS:
            self._runs.clear()
            return
        self._failures = self._failures + 1 if time.monotonic() < self._start_time + _STABLE_SECONDS else 1
        if self._failures > 1:
            self._next_start_time = time.monotonic() + min(2.0**self._failures, _MAX_RESTART_SECONDS)
        self._runs = {run: None for run in self._runs if _is_unfinished(run)}
        if self._runs and process.returncode != self._logged_end:
            self._logged_end, first = process.returncode, next(iter(self._runs))
            _logger.warning("%s: the delivery process ended, restarting (%s)", first, _describe_end(process))

    def _start(self) -> None:
        first = next(iter(self._runs))
        with _open_log(list(self._runs)) as log:
            self._process = subprocess.Popen(
                [*self.environment.command, str(first)],
                env=self.environment.variables,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                **BACKGROUND_OPTIONS,
                bufsize=0,
            )
        assert self._process.stdin
        make_nonblocking(self._process.stdin.fileno())
        self._start_time = time.monotonic()
        self._unsent = b"".join(os.fsencode(run) + b"\0" for run in self._runs if run != first)
        self._send()

    def _send(self) -> None:
        if self._unsent and self._process and self._process.stdin:
            with contextlib.suppress(OSError):  # full, or closed; the next check tries again or restarts
                self._unsent = self._unsent[os.write(self._process.stdin.fileno(), self._unsent) :]


def _open_log(directories: list[Path]) -> IO[bytes]:
    """Open the log of the first run that has one for what the process writes to standard error."""
    for directory in directories[:-1]:
        with contextlib.suppress(OSError):  # such as a directory that was deleted
            return os.fdopen(open_owned(directory / DELIVERY_LOG, directory, os.O_APPEND), "ab")
    return os.fdopen(open_owned(directories[-1] / DELIVERY_LOG, directories[-1], os.O_APPEND), "ab")


def _close_requests(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        with contextlib.suppress(OSError):  # closed by the program, together with all descriptors
            process.stdin.close()


def _describe_end(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code == 0:
        return "unknown exit status"
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def _is_unfinished(directory: Path) -> bool:
    """Whether a run continues, or has pending events that a backend may accept."""
    try:
        if read_status(directory) == "RUNNING":
            return True
        return not all(sink.is_closed for sink in backlog(directory, Manifest.load(directory)))
    except (OSError, RunNotFoundError):  # moved or deleted
        return False


def _is_refused(directory: Path) -> bool:
    try:
        return has_auth_error(directory, start_time=0.0)
    except (OSError, RunNotFoundError):  # moved or deleted
        return False


_processes: list[SharedProcess] = []
#: Processes that did not react. Polling the ended ones removes zombies.
_replaced: list[subprocess.Popen[bytes]] = []
#: Reentrant, because the garbage collector ends runs at any time.
_lock = threading.RLock()


def hand_over(directory: Path, environment: DeliveryEnvironment) -> SharedProcess:
    """Deliver a run in the process of its environment. The process is started if needed.

    Args:
        directory: The run directory.
        environment: Environment of the run.

    Returns:
        The process.

    Raises:
        OSError: If the process cannot be started.
    """
    with _lock:
        check_processes()
        process = next((process for process in _processes if process.environment == environment), None)
        if process is None:
            process = SharedProcess(environment)
            refused = [run for earlier in _processes for run in earlier.take_refused_runs(environment)]
            _processes.append(process)
            for run in refused:
                process.add(run)
        process.add(directory)
        return process


def check_processes() -> None:
    """Restart the processes that died, and forget those that delivered all runs."""
    with _lock:
        for process in list(_processes):
            with contextlib.suppress(OSError):  # reported by hand_over()
                process.check()
            if process.is_done:
                _processes.remove(process)


def forget_run(directory: Path) -> bool:
    """Forget a run whose directory is moved.

    Args:
        directory: The run directory.

    Returns:
        Whether the run may be unfinished.
    """
    with _lock:
        known = [process.remove(directory) for process in _processes]
    return any(known)


def spawn_delivery(directory: Path) -> None:
    """Deliver a run with the environment of this process. A failure is logged.

    Args:
        directory: The run directory.
    """
    try:
        hand_over(directory, DeliveryEnvironment.current(directory))
    except (OSError, RunNotFoundError) as error:
        raise_from_signal_handler(error)
        _logger.error("%s: cannot start the delivery process: %s", directory, error)


def leave_processes() -> None:
    """Leave the processes to themselves when this process ends, after restarting those that died."""
    with _lock:
        for process in _processes:
            process.end_pause()
        check_processes()
        for process in _processes:
            process.leave()
        for replaced in _replaced:
            replaced.returncode = 0
        _processes.clear()


def _leave_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    for process in _processes:
        process.leave_in_child()
    _processes.clear()


after_fork_in_child(_leave_in_child)
