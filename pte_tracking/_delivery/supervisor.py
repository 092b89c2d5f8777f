"""Supervision of the delivery of a run while the run is written."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from pte_tracking._delivery.backlog import has_auth_error
from pte_tracking._delivery.control import request_handover
from pte_tracking._delivery.delivery_environment import DeliveryEnvironment
from pte_tracking._delivery.locations import Announcer
from pte_tracking._delivery.shared_process import SharedProcess, check_processes, hand_over
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.place import Place
from pte_tracking._store.signal_errors import raise_from_signal_handler

_logger = logging.getLogger("pte_tracking")
_CHECK_SECONDS = 2.0  # between two checks that a process delivers the run
_HANDOVER_CHECK_SECONDS = 0.5  # until the first check after a request for a handover
_MAX_ATTEMPTS = 3  # to hand over a run, which take 14 seconds, before another process is started
_MAX_CHECK_SECONDS = 60.0  # between two attempts to hand over a run that is not delivered


class DeliverySupervisor:
    """Ensures that a process delivers a run.

    Args:
        directory: The run directory.
        place: Identity of the directory. If the directory is moved, no process is started for its path.

    Attributes:
        directory: The run directory.
        place: Identity of the directory.
        announcer: Logs where the run is found.
        check_time: Time of the last :meth:`ensure_running`, in seconds since the Unix epoch. An earlier time means that
            the clock was set back.
        next_check_time: Time of the next :meth:`ensure_running`, in seconds since the Unix epoch.
    """

    def __init__(self, directory: Path, place: Place) -> None:
        self.directory = directory
        self.place = place
        self.announcer = Announcer(directory)
        self.check_time = self.next_check_time = 0.0
        self._environment: DeliveryEnvironment | None = None
        self._process: SharedProcess | None = None
        #: Attempts to hand over the run since a process last held its lock.
        self._attempts = 0
        self._start_time = time.time()
        #: Failure of the last check, which is logged once.
        self._logged_error = ""

    @property
    def is_delivered(self) -> bool:
        """Whether a process holds the delivery lock of the run."""
        return lock.is_held(self.directory / DELIVERY_LOCK)

    @property
    def has_process(self) -> bool:
        """Whether the process that is going to deliver the run is alive."""
        return self._process is not None and self._process.is_running

    @property
    def has_failed(self) -> bool:
        """Whether the process that delivers the run has died, and possibly been restarted."""
        return self._process is not None and self._process.has_failed

    def ensure_running(self) -> None:
        """Start a delivery process if none delivers the run. A failure is logged."""
        self.check_time = time.time()
        self.next_check_time = self.check_time + _CHECK_SECONDS
        if not self.place.is_current():
            return
        try:
            self._start_if_needed()
            self._logged_error = ""
        except (OSError, RunNotFoundError) as error:  # such as too many open files
            raise_from_signal_handler(error)
            if str(error) != self._logged_error:
                self._logged_error = str(error)
                _logger.error("%s: cannot start the delivery process: %s", self.directory, error)

    def ensure_running_now(self) -> None:
        """Start a delivery process if none delivers the run, without a pause after the death of an earlier one."""
        if self._process:
            self._process.end_pause()
        self.ensure_running()

    def _start_if_needed(self) -> None:
        self.announcer.announce()
        check_processes()
        if self._environment is None:
            self._environment = DeliveryEnvironment.current(self.directory)
        elif self._environment.has_new_credentials():
            self._environment = DeliveryEnvironment.current(self.directory)
            if self._process:
                self._process.remove(self.directory)
            self._request_handover()
            return
        if self.is_delivered:
            self._attempts = 0
            # A delivery process of an earlier training process continues with this one, unless its credentials expired.
            if self._process is None and has_auth_error(self.directory, self._start_time):
                self._start_time = self.check_time
                self._request_handover()
            return
        if self._process and self._process.is_running and self._attempts == _MAX_ATTEMPTS:
            self._process.replace()  # such as a process that was stopped, or that waits for a dead file system
        self._process = hand_over(self.directory, self._environment)
        if self._process.is_running:
            self.next_check_time = self.check_time + min(_CHECK_SECONDS * 2.0**self._attempts, _MAX_CHECK_SECONDS)
            self._attempts += 1

    def _request_handover(self) -> None:
        self.next_check_time = time.time() + _HANDOVER_CHECK_SECONDS
        request_handover(self.directory)


def is_delivery_enabled() -> bool:
    """Whether this machine starts delivery processes. ``PTE_TRACKING_DELIVERY=off`` leaves delivery to another one."""
    return os.environ.get("PTE_TRACKING_DELIVERY") != "off"
