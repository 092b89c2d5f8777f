"""Names of events in a backend that stores several kinds of events under one set of names.

All backends share one rule. The kind that is delivered first keeps the name. In TensorBoard, a figure ``loss`` after a
metric ``loss`` becomes ``loss/figure``. If that name is taken as well, a number is appended: ``loss/figure-2``. The
state of the sink contains the names, so a name never changes its kind, even after a restart or a rewind.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from pte_tracking._store.events import AnyEvent, Audio, Dataset, Figure, Histogram, Html, Image, Table, Text, Video
from pte_tracking.sinks import Limits

_logger = logging.getLogger("pte_tracking")
_KINDS: dict[type[AnyEvent], str] = {
    Figure: "figure",
    Image: "image",
    Histogram: "histogram",
    Text: "text",
    Table: "table",
    Html: "html",
    Audio: "audio",
    Video: "video",
    Dataset: "dataset",
}
_EPOCH = "epoch"  # backends store the epoch of a row as a metric of this name
_RESERVED = "reserved"


class EventNames:
    """Names that a sink has received, and the kind of each.

    Args:
        key: Key of the sink in the run.
        limits: Limits of the sink.
    """

    def __init__(self, key: str, limits: Limits) -> None:
        self._key = key
        self._limits = limits
        self.restore([])

    def state(self) -> list[list[Any]]:
        """Return the state to save: kinds with their names, in the order in which they were delivered."""
        return self._arrivals

    def restore(self, arrivals: Iterable[Iterable[Any]]) -> None:
        """Restore a state that :meth:`state` returned."""
        self._arrivals: list[list[Any]] = []
        self._owners = dict.fromkeys(self._limits.reserved_names, _RESERVED)
        #: Names in the backend by kind and name of the event.
        self._names: dict[str, dict[str, str]] = {kind: {} for kind in self._limits.shared_names}
        self._renamed_metrics: set[str] = set()
        if "metric" in self._names:
            self._owners[_EPOCH], self._names["metric"][_EPOCH] = "metric", _EPOCH
        for kind, names in arrivals:
            for name in names:
                self._add(kind, name)

    def rename(self, event: Any) -> Any:
        """Return an event other than metrics with its name in the backend. The first event of a name assigns it."""
        kind = _KINDS.get(type(event))
        if kind not in self._names:
            return event
        if isinstance(event, Dataset):
            prefix = f"dataset/{event.context}/"
            name = self._find(kind, prefix + event.name).removeprefix(prefix)
            return event if name == event.name else msgspec.structs.replace(event, name=name)
        name = self._find(kind, event.key)
        return event if name == event.key else msgspec.structs.replace(event, key=name)

    def rename_metrics(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return metrics with their names in the backend: ``values`` itself if all names are unchanged."""
        names = self._names.get("metric")
        if names is None:
            return values
        if not names.keys() >= values.keys():
            for key in values:
                self._find("metric", key)
        if self._renamed_metrics.isdisjoint(values):
            return values
        return {names[key]: value for key, value in values.items()}

    def _find(self, kind: str, name: str) -> str:
        known = self._names[kind].get(name)
        if known is not None:
            return known
        chosen = self._add(kind, name)
        if chosen != name:
            owner = self._owners[name]
            reason = "is reserved" if owner == _RESERVED else f"belongs to another kind ({owner})"
            _logger.warning(
                "%s: %s %.300r is delivered as %.300r, because this name %s", self._key, kind, name, chosen, reason
            )
        return chosen

    def _add(self, kind: str, name: str) -> str:
        numbered = (f"{name}/{kind}-{number}" for number in itertools.count(2))
        candidates = itertools.chain([name, f"{name}/{kind}"], numbered)
        chosen = next(candidate for candidate in candidates if candidate not in self._owners)
        self._owners[chosen] = kind
        self._names.setdefault(kind, {})[name] = chosen
        if kind == "metric" and chosen != name:
            self._renamed_metrics.add(name)
        if not self._arrivals or self._arrivals[-1][0] != kind:
            self._arrivals.append([kind, []])
        self._arrivals[-1][1].append(name)
        return chosen
