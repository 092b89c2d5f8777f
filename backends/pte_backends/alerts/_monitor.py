"""Alerts that the events of a run and the passing time cause."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pte_backends.alerts._alert import CONDITION, Alert
from pte_backends.alerts._outbox import format_time
from pte_tracking.sinks import AnyEvent, Condition, Metrics, Rewound, RunEnded, RunStarted, RunView, Status

_MAX_VALUES = 8  # values in a message
_MAX_KEYS = 5  # keys in the title of a message
_MAX_ERROR_LENGTH = 1000  # characters
_SYSTEM_PREFIX = "system/"  # metrics of the machine, which also change while the training hangs


@dataclasses.dataclass
class _Observed:
    """Known facts about the current session of the run, as plain JSON.

    Attributes:
        is_running: Whether the session has started and not ended.
        host: Host of the training process.
        step: Last step.
        values: Values of the last row. They are texts, because JSON has no NaN.
        operands: Last values of the names in conditions, as texts.
        event_time: Time of the last event, in seconds since the Unix epoch.
        progress_time: Time at which the last event arrived, in seconds since the Unix epoch.
        is_stalled: Whether no event has arrived since an alert about that.
        nan_keys: Metrics that were not a number.
        fulfilled: Conditions that were true at the last row.
    """

    is_running: bool = False
    host: str = ""
    step: int | None = None
    values: dict[str, str] = dataclasses.field(default_factory=dict)
    operands: dict[str, str] = dataclasses.field(default_factory=dict)
    event_time: float = 0.0
    progress_time: float = 0.0
    is_stalled: bool = False
    nan_keys: list[str] = dataclasses.field(default_factory=list)
    fulfilled: list[str] = dataclasses.field(default_factory=list)


class Monitor:
    """Turns events and the passing time into alerts.

    Args:
        run: The run.
        conditions: Conditions on metrics.
        stalled_after_seconds: Time without an event after which the run is stalled.
        state: State that an earlier monitor returned from :meth:`state`.
    """

    def __init__(
        self, run: RunView, conditions: Sequence[str], stalled_after_seconds: float, state: Mapping[str, Any]
    ) -> None:
        self._run = run
        self._conditions = {text: Condition(text) for text in conditions}
        self._names = set[str]().union(*(condition.names for condition in self._conditions.values()))
        self._stalled_after_seconds = stalled_after_seconds
        self._observed = _Observed(**state)

    def state(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return dataclasses.asdict(self._observed)

    def observe(self, event: AnyEvent) -> Iterator[Alert]:
        """Yield the alerts that an event causes."""
        if isinstance(event, RunStarted):
            yield from self._start(event)
        observed = self._observed
        if isinstance(event, Rewound) or _is_system_row(event):
            return
        if observed.is_stalled:
            observed.is_stalled = False
            yield self._alert("stalled", "progress again", event.time, [f"Silent since {self._last_event_time()}."])
        observed.event_time, observed.progress_time = event.time, time.time()
        if isinstance(event, Metrics):
            yield from self._observe_metrics(event)
        elif isinstance(event, RunEnded):
            yield from self._end(event.status, event.time, event.error)

    def check(self, status: Status) -> Iterator[Alert]:
        """Yield the alerts that the passing time and the status of the run cause.

        Args:
            status: Status of the run, whose events were observed.
        """
        observed, now = self._observed, time.time()
        if not observed.is_running:
            return
        if status != "RUNNING":
            yield from self._end(status, observed.event_time, None)
        elif not observed.is_stalled and now - observed.progress_time >= self._stalled_after_seconds:
            observed.is_stalled = True
            minutes = self._stalled_after_seconds / 60
            lines = [f"The last event is from {self._last_event_time()}. The training process is alive."]
            yield self._alert("stalled", f"no progress for {minutes:.3g} min", now, lines)

    def _start(self, event: RunStarted) -> Iterator[Alert]:
        if self._observed.is_running:  # killed and started again before the end was noticed
            yield from self._end("KILLED", self._observed.event_time, None)
        step = self._observed.step
        self._observed = _Observed(is_running=True, host=event.host, step=step)
        command = self._run.context.get("command")
        lines = [f"Command: {command}"] if command and not event.resumed else []  # that of the first start
        yield self._alert("started", "resumed" if event.resumed else "started", event.time, lines)

    def _end(self, status: Status, end_time: float, error: str | None) -> Iterator[Alert]:
        self._observed.is_running = self._observed.is_stalled = False
        kind = status.lower()
        lines = [f"Error: {error[:_MAX_ERROR_LENGTH]}"] if error else []
        if not error and kind != "finished":
            lines = ["The training process ended without an error message."]
        yield self._alert(kind, kind, end_time, lines)

    def _observe_metrics(self, event: Metrics) -> Iterator[Alert]:
        observed = self._observed
        numbers = {key: float(value) for key, value in event.values.items()}
        observed.step = event.step
        observed.values = {key: f"{value:.6g}" for key, value in list(numbers.items())[:_MAX_VALUES]}
        new_keys = [key for key, value in numbers.items() if math.isnan(value) and key not in observed.nan_keys]
        if new_keys:
            observed.nan_keys += new_keys
            more = f" and {len(new_keys) - _MAX_KEYS} more" if len(new_keys) > _MAX_KEYS else ""
            title = f"{', '.join(new_keys[:_MAX_KEYS])}{more}: not a number"
            yield self._alert("nan", title, event.time, [])
        if self._conditions:
            yield from self._check_conditions(event, numbers)

    def _check_conditions(self, event: Metrics, numbers: Mapping[str, float]) -> Iterator[Alert]:
        observed = self._observed
        known = {"step": event.step, "epoch": event.epoch, **numbers}
        observed.operands |= {name: repr(known[name]) for name in self._names if known.get(name) is not None}
        operands = {name: float(value) for name, value in observed.operands.items()}
        fulfilled = [text for text, condition in self._conditions.items() if condition.holds(operands)]
        for text in fulfilled:
            if text not in observed.fulfilled:
                hidden = sorted(self._conditions[text].names - observed.values.keys() - {"step"})
                lines = [f"{name}: {operands[name]:.6g}" for name in hidden if name in operands]
                yield self._alert(CONDITION, text, event.time, lines)
        observed.fulfilled = fulfilled

    def _alert(self, kind: str, title: str, alert_time: float, lines: Sequence[str]) -> Alert:
        observed = self._observed
        details = [*lines]
        if observed.step is not None:
            details.append(f"Step: {observed.step}")
        if observed.values:
            details.append(f"Last values: {', '.join(f'{key} {value}' for key, value in observed.values.items())}")
        details += [
            f"Time: {format_time(alert_time)}",
            f"Host: {observed.host}",
            f"Details: pte-tracking show {shlex.quote(str(self._run.directory))}",
        ]
        return Alert(kind, " ".join(title.split()), "\n".join(details), alert_time)

    def _last_event_time(self) -> str:
        return format_time(self._observed.event_time)


def _is_system_row(event: AnyEvent) -> bool:
    return isinstance(event, Metrics) and all(key.startswith(_SYSTEM_PREFIX) for key in event.values)
