"""The training process's hand on the delivery process: starts it, looks after it, waits for it at the end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pte_tracking._delivery.backlog import SinkBacklog, backlog
from pte_tracking._delivery.control import request_handover, request_retry
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY, DELIVERY_LOCK, DELIVERY_LOG
from pte_tracking._store.manifest import Manifest, RunNotFoundError

_logger = logging.getLogger("pte_tracking")
_CHECK_SECONDS = 2.0
_MAX_RESTART_SECONDS = 60.0
#: Seconds until whoever delivers has left; on another machine it may see a minute late that it is asked to, over NFS.
_LOCAL_STOP_SECONDS, _REMOTE_STOP_SECONDS = 5.0, 90.0

#: Children that may outlive their run: whoever forgets them before they end leaves zombies behind.
_children: list[subprocess.Popen[bytes]] = []


class DeliverySupervisor:
    """Keeps one delivery process alive for a run's directory.

    Args:
        directory: The run's directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        #: When to look next whether the process lives (by ``time.time``).
        self.next_check_time = 0.0
        self._log_start = _size(directory / DELIVERY_LOG)

    def ensure_running(self) -> None:
        """Start the process if none serves the directory."""
        self.next_check_time = time.time() + _CHECK_SECONDS
        if self._process is not None and self._process.poll() is None:
            return
        if lock.is_held(self._directory / DELIVERY_LOCK):
            return  # one that outlived an earlier trainer goes on with this one
        if self._starts > 1:
            pause = min(2.0**self._starts, _MAX_RESTART_SECONDS)
            self.next_check_time = time.time() + pause
            _logger.warning("%s: the delivery process had ended; it is started again", self._directory)
        self._starts += 1
        try:
            self._process = spawn_delivery(self._directory)
        except OSError as error:
            _logger.error("%s: the delivery process cannot be started: %s", self._directory, error)

    def wait(self, timeout: float) -> None:
        """Wait until everything is delivered, and say what is not.

        Args:
            timeout: Seconds to wait at most; delivery goes on behind afterwards.
        """
        try:
            self._wait_for_delivery(timeout)
        except (OSError, RunNotFoundError) as error:
            _logger.error("%s: whether everything was delivered is not known: %s", self._directory, error)

    def _wait_for_delivery(self, timeout: float) -> None:
        request_retry(self._directory)
        deadline = time.monotonic() + timeout
        manifest = Manifest.load(self._directory)
        pending = backlog(self._directory, manifest)
        try:
            while pending and time.monotonic() < deadline:
                if time.time() > self.next_check_time:
                    self.ensure_running()
                time.sleep(0.02)
                pending = backlog(self._directory, manifest)
        finally:  # also where somebody is tired of waiting
            self._report_backlog(pending)

    def _report_backlog(self, pending: list[SinkBacklog]) -> None:
        if pending:
            _logger.warning(
                "not delivered yet: %s. Delivery goes on behind; if this machine goes down before it is done, run: "
                "pte-tracking sync %s",
                "; ".join(map(str, pending)),
                self._directory,
            )
        self._repeat_warnings([sink.reason for sink in pending if sink.reason])
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # it is meant to outlive us: no ResourceWarning

    def _repeat_warnings(self, reported: list[str]) -> None:
        """What the delivery process said in this session, where the user looks; less what was told already."""
        path = self._directory / DELIVERY_LOG
        if _size(path) <= self._log_start:
            return
        with open(path, errors="replace") as file:
            file.seek(self._log_start)
            lines = [line.partition(" WARNING ")[2] or line.partition(" ERROR ")[2] for line in file]
            lines = [line.strip() for line in lines if line and not any(reason in line for reason in reported)]
        for line in lines[:5]:
            _logger.warning("delivery: %s", line)
        if len(lines) > 5:
            _logger.warning("delivery: %d more such lines in %s", len(lines) - 5, path)


def spawn_delivery(directory: Path) -> subprocess.Popen[bytes]:
    """Start a delivery process for a run's directory; it outlives this process."""
    (directory / DELIVERY).mkdir(exist_ok=True)
    _children[:] = [process for process in _children if process.poll() is None]
    with open(directory / DELIVERY_LOG, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pte_tracking._delivery.process", directory],
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
    # Modules are not looked for in the current folder, where a file of the user's may have any name.
    environment["PYTHONSAFEPATH"] = "1"
    # Warnings that the user has made errors would come from other people's products here, and end the delivery.
    environment.pop("PYTHONWARNINGS", None)
    return environment


def is_delivery_enabled() -> bool:
    """Whether this machine delivers; one that only trains is told so by a variable, and another delivers."""
    return os.environ.get("PTE_TRACKING_DELIVERY") != "off"


def stop_delivery(directory: Path) -> bool:
    """End the delivery of a directory; it loses nothing by that.

    Whoever delivers is asked first, since it may deliver other runs, too, and on another machine.

    Returns:
        Whether there was one.

    Raises:
        LockedError: It is on another machine, and goes on.
    """
    path = directory / DELIVERY_LOCK
    holder = lock.holder(path)
    if holder is None:
        return False
    is_local = holder.is_local_process()
    request_handover(directory)
    if not is_local:
        _logger.warning("%s: %s delivers the earlier run; waits until it has left", directory, holder)
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
