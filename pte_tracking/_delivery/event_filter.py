"""Filter that adapts the effective history to a sink."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from pte_tracking._delivery.event_names import EventNames
from pte_tracking._delivery.file_fallback import FileFallback
from pte_tracking._delivery.mapped_keys import MappedKeys
from pte_tracking._delivery.superseded_points import SupersededPoints
from pte_tracking._store.events import AnyEvent, Checkpoint, FirstBatch, Metrics, Params, Tags
from pte_tracking._store.metrics import FirstValues
from pte_tracking.sinks import Display, EventKind, Limits

#: Keys of figures, images, texts and histograms, which backends may store below one directory.
_FILES = "Files"


class EventFilter:
    """Selects the data points for a sink, renames and maps keys, and splits large rows.

    Of several LogReports, the first value of a key and step is selected. The LogReports log a message about that.

    Args:
        key: Key of the sink in the run.
        name: Name of the sink.
        limits: Limits of the sink.
        shows: How the sink shows each kind of event. None if it does not declare that.
    """

    def __init__(self, key: str, name: str, limits: Limits, shows: Mapping[EventKind, Display] | None = None) -> None:
        self._names = {key, name}
        self._key, self._name = key, name
        self._limits = limits
        self._shows = shows
        self._fallback = FileFallback(shows)
        self._event_names = EventNames(key, limits)
        self._first_values = FirstValues()
        self._superseded = SupersededPoints(key)
        self._mapped_keys = MappedKeys(key, limits)

    def restarted(self) -> EventFilter:
        """Return a copy at the start of the history, in which the names of events stay the same."""
        restarted = EventFilter(self._key, self._name, self._limits, self._shows)
        restarted.restore({"names": self._event_names.state(), "mapped": self._mapped_keys.state()})
        return restarted

    def state(self) -> dict[str, Any]:
        """Return the state to save: the current step, its keys with the log of each key, and names in the backend."""
        return {
            "step": self._first_values.step,
            "keys": self._first_values.keys,
            "names": self._event_names.state(),
            "mapped": self._mapped_keys.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that :meth:`state` returned. Suppressed data points are cleared."""
        self._first_values.step, self._first_values.keys = state.get("step"), dict(state.get("keys", {}))
        self._event_names.restore(state.get("names", []))
        self._mapped_keys.restore(state.get("mapped", {}))
        self._superseded.clear()

    def rewind(self, backwards: Iterable[AnyEvent]) -> None:
        """Return to an earlier position.

        Args:
            backwards: Effective history up to that position, newest event first.
        """
        first = self._first_values = FirstValues()
        if self._limits.separate_logs:
            return
        for event in backwards:
            if isinstance(event, Metrics) and self._accepts(event):
                if event.step != first.step is not None:
                    return
                first.step = event.step
                if not event.explicit:
                    first.keys.update(dict.fromkeys(event.points, event.log))

    def suppress(self, superseded: Iterable[AnyEvent]) -> None:
        """Do not select the data points of these events again."""
        for event in superseded:
            if isinstance(event, Metrics) and self._accepts(event):
                self._superseded.add(event)

    def report_differences(self) -> None:
        """Log how many values differ from superseded ones that the backend keeps, if any."""
        self._superseded.report()

    def select(self, events: Iterable[AnyEvent]) -> Iterator[AnyEvent]:
        """Return the events for the sink, in order."""
        for event in events:
            if isinstance(event, Metrics):
                if self._accepts(event):
                    yield from self._metrics(event)
            elif isinstance(event, FirstBatch):
                continue  # read by a resume only
            elif isinstance(event, Params | Tags):
                yield self._with_values(event, self._mapped_keys.map_values(type(event).__name__, event.values))
            elif isinstance(event, Checkpoint):
                yield self._with_values(event, self._mapped_keys.map_values(Metrics.__name__, event.values))
            else:
                event = self._event_names.rename(self._fallback.convert(event))
                key = getattr(event, "key", None)
                mapped = key if key is None else self._mapped_keys.find(_FILES, key)
                yield event if mapped == key else msgspec.structs.replace(event, key=mapped)

    def _accepts(self, event: Metrics) -> bool:
        return event.sinks is None or not self._names.isdisjoint(event.sinks)

    def _metrics(self, event: Metrics) -> Iterator[Metrics]:
        values = event.values
        if not self._limits.separate_logs:
            values = self._first_values.select(event)
        elif event.log is None:
            return
        if self._superseded and event.seq > 0:  # samples of system metrics have other steps
            values = self._superseded.select_new(event.step, values)
        values = self._event_names.rename_metrics(values)
        values = self._mapped_keys.map_values(Metrics.__name__, values)
        max_values = self._limits.batch_values
        if values is event.values and len(values) <= max_values:
            yield event
            return
        items = list(values.items())
        for start in range(0, len(items), max_values):
            yield self._with_values(event, dict(items[start : start + max_values]))

    def _with_values(self, event: Any, values: dict[str, Any]) -> Any:
        return event if values == event.values else msgspec.structs.replace(event, values=values)
