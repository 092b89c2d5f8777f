"""Connection that turns the events of a run into alerts and sends them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pte_backends.alerts._addresses import read_addresses
from pte_backends.alerts._alert import CONDITION, Alert
from pte_backends.alerts._monitor import Monitor
from pte_backends.alerts._outbox import Outbox
from pte_tracking.sinks import AnyEvent, Status


class AlertConnection:
    """Connection to the addresses of the alerts.

    :meth:`write` queues alerts, and :meth:`poll` sends them. The queue is saved with the position in the journal, so
    that an alert is sent again only if the delivery process is killed between sending it and saving.

    Args:
        monitor: Finds the alerts.
        kinds: Kinds of alerts to send.
        run_name: Display name of the run.
        outbox_state: State of the outbox of an earlier connection.
    """

    def __init__(
        self, monitor: Monitor, kinds: Collection[str], run_name: str, outbox_state: Mapping[str, Any]
    ) -> None:
        self._monitor = monitor
        self._kinds = {*kinds, CONDITION}
        self._run_name = run_name
        self._outbox_state = dict(outbox_state)
        self._outbox: Outbox | None = None

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Queue the alerts that the events cause.

        Args:
            events: Batch of events.

        Raises:
            PermissionError: If the environment of this process contains no valid addresses.
        """
        for event in events:
            self._queue(self._monitor.observe(event))

    def poll(self, status: Status) -> bool:
        """Queue the alerts that the passing time and the status cause, and send one alert.

        Args:
            status: Status of the run.

        Returns:
            Whether an alert was sent, so another one may follow.

        Raises:
            PermissionError: If the environment of this process contains no valid addresses.
            ConnectionError: If an address does not accept an alert.
        """
        self._queue(self._monitor.check(status))
        return self._open_outbox().send_next(time.time())

    def state(self) -> dict[str, Any]:
        """Return the observed facts and the alerts that are not sent yet.

        Returns:
            The state as plain JSON, without any part of an address.
        """
        return {
            "monitor": self._monitor.state(),
            "outbox": self._outbox.state() if self._outbox else self._outbox_state,
        }

    def close(self, status: Status | None) -> None:
        """Do nothing, because :meth:`poll` has sent all alerts.

        Args:
            status: Final status of the run.
        """

    def _queue(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            if alert.kind in self._kinds:
                self._open_outbox().add(alert)

    def _open_outbox(self) -> Outbox:
        """Return the outbox. A process that only checks a delivered run needs no addresses."""
        if self._outbox is None:
            try:
                addresses = read_addresses()
            except ValueError as error:
                raise PermissionError(str(error)) from error
            self._outbox = Outbox(addresses, self._run_name, self._outbox_state)
        return self._outbox
