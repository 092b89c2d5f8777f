"""Alerts that are not sent yet, for each address."""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Mapping
from typing import Any

from pte_backends.alerts._addresses import Address
from pte_backends.alerts._alert import Alert

_logger = logging.getLogger("pte_tracking")
_HOUR = 3600.0  # seconds
#: Age from which several alerts become one message, in seconds.
_MAX_AGE_SECONDS = _HOUR
_MAX_PER_HOUR = 6  # alerts of one kind
_MAX_QUEUED = 100  # alerts for one address
_MAX_LISTED = 10  # alerts in a summary


class Outbox:
    """Alerts to send, a list per address, so an address that fails delays and repeats nothing at the others.

    Args:
        addresses: The addresses.
        run_name: Display name of the run.
        state: State that an earlier outbox returned from :meth:`state`.
    """

    def __init__(self, addresses: list[Address], run_name: str, state: Mapping[str, Any]) -> None:
        self._addresses = addresses
        self._run_name = " ".join(run_name.split())
        # The position identifies an address, because the state must not contain the address itself.
        queues = [[Alert(**alert) for alert in queue] for queue in state.get("queues", [])]
        self._queues = (queues + [[] for _ in addresses])[: len(addresses)]
        if dropped := sum(map(len, queues[len(addresses) :])):
            _logger.warning("alerts: %d alerts for addresses that were removed are not sent.", dropped)
        #: Times of the last alerts by kind, and the number of alerts that were left out since the last one.
        self._times: dict[str, list[float]] = dict(state.get("times", {}))
        self._left_out: dict[str, int] = dict(state.get("left_out", {}))
        self._failures: dict[int, ConnectionError] = {}

    def state(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "queues": [[dataclasses.asdict(alert) for alert in queue] for queue in self._queues],
            "times": {kind: list(times) for kind, times in self._times.items()},
            "left_out": dict(self._left_out),
        }

    def add(self, alert: Alert) -> None:
        """Queue an alert for all addresses, unless there were too many of its kind within an hour."""
        times = [time for time in self._times.get(alert.kind, []) if time > alert.time - _HOUR]
        if len(times) >= _MAX_PER_HOUR:
            self._left_out[alert.kind] = self._left_out.get(alert.kind, 0) + 1
            return
        self._times[alert.kind] = times = [*times, alert.time]
        notes = []
        if left_out := self._left_out.pop(alert.kind, 0):
            notes.append(f"{_count(left_out)} of this kind before this one were not sent.")
        if len(times) == _MAX_PER_HOUR:
            notes.append(
                f"This is alert {_MAX_PER_HOUR} of this kind within an hour. "
                f"Further ones are not sent before {format_time(times[0] + _HOUR)}."
            )
        alert = dataclasses.replace(alert, body="\n".join([alert.body, *notes]))
        for queue in self._queues:
            queue.append(alert)
            if len(queue) > _MAX_QUEUED:
                _logger.warning("alerts: too many alerts wait for an address. Not sent: %s", queue.pop(0).title)

    def send_next(self, now: float) -> bool:
        """Send the next message to one address.

        Args:
            now: Current time in seconds since the Unix epoch.

        Returns:
            Whether a message was sent. False if there is none.

        Raises:
            ConnectionError: If an address failed, and the other addresses have received all alerts.
        """
        for index, (address, queue) in enumerate(zip(self._addresses, self._queues, strict=True)):
            if not queue or index in self._failures:
                continue
            alert, count = _next_message(queue, now)
            try:
                address.send(f"{self._run_name}: {alert.title}", alert.body, alert.severity)
            except ConnectionError as error:
                self._failures[index] = error
                continue
            del queue[:count]
            return True
        if self._failures:
            raise ConnectionError("; ".join(map(str, self._failures.values())))
        return False


def format_time(time: float) -> str:
    """Return a time in seconds since the Unix epoch as local time with its zone."""
    return f"{datetime.datetime.fromtimestamp(time).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _next_message(queue: list[Alert], now: float) -> tuple[Alert, int]:
    """Return the next message, and the number of alerts that it contains. Old alerts are not sent one by one."""
    count = next((i for i, alert in enumerate(queue) if alert.time > now - _MAX_AGE_SECONDS), len(queue))
    if count < 2:
        return queue[0], 1
    last = queue[count - 1]
    lines = [f"{format_time(alert.time)}  {alert.title}" for alert in queue[max(count - _MAX_LISTED, 0) : count]]
    heading = (
        f"These {_count(count)} are more than an hour old:"
        if count <= _MAX_LISTED
        else (f"{_count(count)} are more than an hour old. The last {_MAX_LISTED}:")
    )
    body = "\n".join([heading, *lines, "", last.body])
    return Alert(last.kind, f"{last.title}, and {_count(count - 1, 'earlier ')}", body, last.time), count


def _count(number: int, adjective: str = "") -> str:
    return f"{number} {adjective}{'alert' if number == 1 else 'alerts'}"
