"""Filter that adapts the effective history to a sink."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pte_tracking._store.events import AnyEvent, Metrics, Number, Params, Tags
from pte_tracking.sinks import Limits, map_key

_logger = logging.getLogger("pte_tracking")


class EventFilter:
    """Selects the data points for a sink, maps their keys, and splits rows that exceed the limits.

    Of several LogReports, the first value of a key and step is selected. The LogReports log a message about that.

    Args:
        key: Key of the sink in the run.
        name: Name of the sink.
        limits: Limits of the sink.
    """

    def __init__(self, key: str, name: str, limits: Limits) -> None:
        self._names = {key, name}
        self._key = key
        self._limits = limits
        self._step: int | None = None
        self._keys: dict[str, str | None] = {}
        #: Superseded data points that the backend cannot delete.
        self._suppressed: dict[tuple[str, int], Number] = {}
        self._last_suppressed_step = -1
        self._mapped: dict[str, str] = {}
        self._warned: set[str] = set()

    def restarted(self) -> EventFilter:
        """Return a copy at the start of the history. Warnings that this filter logged are not logged again."""
        restarted = copy.copy(self)
        restarted.restore({})
        return restarted

    def state(self) -> dict[str, Any]:
        """Return the state to save: the current step, and its keys with the log of each key."""
        return {"step": self._step, "keys": self._keys}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that :meth:`state` returned. Suppressed data points are cleared."""
        self._step, self._keys = state.get("step"), dict(state.get("keys", {}))
        self._suppressed, self._last_suppressed_step = {}, -1

    def rewind(self, backwards: Iterable[AnyEvent]) -> None:
        """Return to an earlier position.

        Args:
            backwards: Effective history up to that position, newest event first.
        """
        self._step, self._keys = None, {}
        if self._limits.separate_logs:
            return
        for event in backwards:
            if isinstance(event, Metrics) and self._accepts(event):
                if event.step != self._step is not None:
                    return
                self._step = event.step
                if not event.explicit:
                    self._keys.update(dict.fromkeys(event.points, event.log))

    def suppress(self, superseded: Iterable[AnyEvent]) -> None:
        """Do not select the data points of these events again."""
        for event in superseded:
            if isinstance(event, Metrics) and self._accepts(event):
                self._last_suppressed_step = max(self._last_suppressed_step, event.step)
                for key, value in event.points.items():
                    # The backend keeps the first value of a key and step.
                    self._suppressed.setdefault((key, event.step), value)  # type: ignore[arg-type]

    def select(self, events: Iterable[AnyEvent]) -> Iterator[AnyEvent]:
        """Return the events for the sink, in order."""
        for event in events:
            if isinstance(event, Metrics):
                if self._accepts(event):
                    yield from self._metrics(event)
            elif isinstance(event, Params | Tags):
                yield self._with_values(event, {self._map(key): value for key, value in event.values.items()})
            elif (key := getattr(event, "key", None)) is not None and (mapped := self._map(key)) != key:
                yield msgspec.structs.replace(event, key=mapped)
            else:
                yield event

    def _accepts(self, event: Metrics) -> bool:
        return event.sinks is None or not self._names.isdisjoint(event.sinks)

    def _metrics(self, event: Metrics) -> Iterator[Metrics]:
        values = event.values
        if not self._limits.separate_logs:
            values = event.points if event.explicit else self._drop_repeated(event, event.points)
        elif event.log is None:
            return
        if self._suppressed:
            values = self._drop_suppressed(event.step, values)
        if self._limits.key_characters or self._limits.key_length or self._limits.key_is_path:
            values = {self._map(key): value for key, value in values.items()}
        max_values = self._limits.batch_values
        if values is event.values and len(values) <= max_values:
            yield event
            return
        items = list(values.items())
        for start in range(0, len(items), max_values):
            yield self._with_values(event, dict(items[start : start + max_values]))

    def _drop_repeated(self, event: Metrics, values: dict[str, Any]) -> dict[str, Any]:
        if event.step != self._step:
            self._step, self._keys = event.step, {}
        repeated = self._keys.keys() & values.keys()
        self._keys.update(dict.fromkeys(values.keys() - repeated, event.log))
        return {key: value for key, value in values.items() if key not in repeated} if repeated else values

    def _drop_suppressed(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        if step > self._last_suppressed_step:
            self._suppressed.clear()
            return values
        for key in values:
            old, new = self._suppressed.get((key, step)), values[key]
            if old is not None and old != new and not (old != old and new != new):
                self._warn_once(
                    "differs",
                    "%s: the run was rewound, and the new values differ (%r at step %d: %r, previously %r). This "
                    "backend cannot delete data points and keeps the previous values. To deliver the new values, use a "
                    'sink that starts a new run after a rewind, such as MLflowSink(on_rewind="fork").',
                    key,
                    step,
                    new,
                    old,
                )
        return {key: value for key, value in values.items() if (key, step) not in self._suppressed}

    def _map(self, key: str) -> str:
        mapped = self._mapped.get(key)
        if mapped is None:
            mapped = self._mapped[key] = map_key(key, self._limits)
            if mapped != key:
                self._warn_once(f"map {key}", "%s: key %.300r is delivered as %r", key, mapped)
        return mapped

    def _with_values(self, event: Any, values: dict[str, Any]) -> Any:
        return event if values == event.values else msgspec.structs.replace(event, values=values)

    def _warn_once(self, topic: str, message: str, *args: object) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            _logger.warning(message, self._key, *args)
