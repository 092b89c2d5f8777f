"""Connection that turns the events of a run into alerts and sends them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

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
        outbox: Sends the alerts.
        kinds: Kinds of alerts to send.
    """

    def __init__(self, monitor: Monitor, outbox: Outbox, kinds: Collection[str]) -> None:
        self._monitor = monitor
        self._outbox = outbox
        self._kinds = {*kinds, CONDITION}

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Queue the alerts that the events cause.

        Args:
            events: Batch of events.
        """
        for event in events:
            self._queue(self._monitor.observe(event))

    def poll(self, status: Status) -> bool:
        """Queue the alerts that the passing time and the status cause, and send one alert.

        Args:
            status: Status of the run.

        Returns:
            Whether an alert was sent, so that another one may follow.

        Raises:
            ConnectionError: If an address does not accept an alert.
        """
        self._queue(self._monitor.check(status))
        return self._outbox.send_next(time.time())

    def state(self) -> dict[str, Any]:
        """Return the observed facts and the alerts that are not sent yet.

        Returns:
            The state as plain JSON, without any part of an address.
        """
        return {"monitor": self._monitor.state(), "outbox": self._outbox.state()}

    def close(self, status: Status | None) -> None:
        """Do nothing, because :meth:`poll` has sent all alerts.

        Args:
            status: Final status of the run.
        """

    def _queue(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            if alert.kind in self._kinds:
                self._outbox.add(alert)
