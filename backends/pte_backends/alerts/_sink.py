"""Sink that sends alerts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pte_backends.alerts._addresses import read_addresses
from pte_backends.alerts._alert import ALERT_KINDS, AlertKind
from pte_backends.alerts._connection import AlertConnection
from pte_backends.alerts._monitor import Monitor
from pte_tracking.sinks import Condition, Display, EventKind, RunView, Sink


@dataclasses.dataclass(frozen=True)
class AlertSink(Sink):
    """Sink that sends alerts by mail, chat, push notification or webhook.

    The environment variable ``APPRISE_URLS`` contains the addresses, separated by spaces or commas. The training does
    not start without a valid address. The delivery process sends the alerts, even if the training hangs or is killed.

    Args:
        on: Reasons for an alert. ``"started"`` includes a resume. ``"killed"`` is an end without an error, such as by
            SIGKILL. ``"nan"`` is a metric that is not a number, once per metric and start. ``"stalled"`` is a training
            process that logs nothing for ``stalled_after`` minutes, and its next event. Defaults to all.
        conditions: Conditions on metrics, ``step`` and ``epoch``, such as ``"val/loss > 10 and step > 100"``. An alert
            is sent when a condition becomes true, and again after it was false. Defaults to ``()``.
        stalled_after: Time without an event, in minutes. Metrics that begin with ``system/`` do not count. It must be
            longer than the longest time between two logged values. Defaults to 30.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If a reason is unknown, a condition is malformed, or ``stalled_after`` is not positive.

    Example:
        >>> from pte_backends.alerts import AlertSink
        >>> sink = AlertSink(on=["failed", "killed"], conditions=["val/loss > 10"])
        >>> sink.on
        ('failed', 'killed')
        >>> AlertSink(conditions=["val/loss"])
        Traceback (most recent call last):
        ...
        ValueError: conditions: 'val/loss' is not a condition. Expected ...
    """

    name: ClassVar[str] = "alerts"
    requires: ClassVar[str | None] = "apprise"
    install: ClassVar[str] = "pip install 'pte-tracking[alerts]'"
    shows: ClassVar[Mapping[EventKind, Display] | None] = {"status": "native"}
    poll_seconds: ClassVar[float | None] = 2.0

    on: Sequence[AlertKind] = ALERT_KINDS
    conditions: Sequence[str] = ()
    stalled_after: float = 30.0

    def __post_init__(self) -> None:
        for field in ("on", "conditions"):
            value = getattr(self, field)
            if isinstance(value, str) or not all(isinstance(item, str) for item in value):
                raise TypeError(f"{field}: expected a list of strings, got {value!r}")
            object.__setattr__(self, field, tuple(value))  # lists from run.json become comparable with the arguments
        if unknown := [kind for kind in self.on if kind not in ALERT_KINDS]:
            raise ValueError(f"on: expected some of {', '.join(ALERT_KINDS)}, got {unknown[0]!r}")
        for text in self.conditions:
            _check_condition(text)
        if isinstance(self.stalled_after, bool) or not isinstance(self.stalled_after, int | float):
            raise TypeError(f"stalled_after: expected a number of minutes, got {self.stalled_after!r}")
        if not 0 < self.stalled_after < float("inf"):
            raise ValueError(f"stalled_after: expected a positive number of minutes, got {self.stalled_after!r}")

    @property
    def destination(self) -> object:
        """The same for all configurations, so that a resume with other options does not send each alert twice."""
        return self.name

    def resolve(self) -> AlertSink:
        """Check the addresses in the environment, unless another machine delivers the run.

        Returns:
            The sink.

        Raises:
            ValueError: If there is no address, or one of them is not valid.
        """
        if os.environ.get("PTE_TRACKING_DELIVERY") != "off":
            read_addresses()
        return self

    def open(self, run: RunView, state: Mapping[str, Any]) -> AlertConnection:
        """Open the connection. The addresses are read when the first alert is due.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.
        """
        monitor = Monitor(run, self.conditions, self.stalled_after * 60, state.get("monitor", {}))
        return AlertConnection(monitor, self.on, run.name, state.get("outbox", {}))


def _check_condition(text: str) -> None:
    try:
        condition = Condition(text)
        condition.holds(dict.fromkeys(condition.names, 0.0))  # raises if a metric is compared with a text
    except ValueError as error:
        raise ValueError(f"conditions: {error}") from None
    if not condition.names:
        raise ValueError(f"conditions: {text!r} contains no metric")
    if any(name.startswith("system/") for name in condition.names):
        raise ValueError(
            f"conditions: {text!r} contains a system metric, and alerts observe the values of the training only. Name "
            "another metric."
        )
