"""Kinds of events that a backend does not show."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import get_args

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store.events import AnyEvent
from pte_tracking.sinks import EventKind, Sink

_logger = logging.getLogger("pte_tracking")
_KINDS: tuple[str, ...] = get_args(EventKind)
#: Message about a kind, after the key of the sink.
HIDDEN_MESSAGE = "not shown by this backend"
_PLURALS = {
    "params": "parameters",
    "status": "final status",
    "metrics": "metrics",
    "tags": "tags",
    "html": "HTML pages",
    "audio": "audio files",
    "model": "exported models",
}


class HiddenKinds:
    """Records and logs, once per run, the kinds of events that a backend does not show.

    Args:
        key: Key of the sink in the run.
        sink: The sink. Nothing is recorded if it does not declare the kinds that it shows.
    """

    def __init__(self, key: str, sink: Sink) -> None:
        self._key = key
        # Not a warning, because the end of a training repeats those of the delivery process. An inline sink would log
        # the same lines in the output of each training.
        self._level = logging.DEBUG if sink.inline else logging.INFO
        self._hidden = frozenset[str]() if sink.shows is None else frozenset(_KINDS).difference(sink.shows)
        #: The cursor loses its last changes if a delivery fails.
        self._logged: set[str] = set()

    def record(self, cursor: Cursor, events: Iterable[AnyEvent]) -> None:
        """Record the hidden kinds of delivered events.

        Args:
            cursor: Cursor of the sink.
            events: Delivered events.
        """
        if self._hidden:
            for event in events:
                kind = str(event.__struct_config__.tag)
                if kind in self._hidden:
                    self._record(cursor, kind)

    def record_status(self, cursor: Cursor) -> None:
        """Record that the run has ended, if the backend does not show the final status.

        Args:
            cursor: Cursor of the sink.
        """
        if "status" in self._hidden:
            self._record(cursor, "status")

    def _record(self, cursor: Cursor, kind: str) -> None:
        if kind in cursor.hidden:
            return
        cursor.hidden.append(kind)
        if kind not in self._logged:
            self._logged.add(kind)
            _logger.log(self._level, "%s: %s: %s", self._key, HIDDEN_MESSAGE, name_kind(kind))


def name_kind(kind: str) -> str:
    """Return the name of a kind of event for messages."""
    return _PLURALS.get(kind, f"{kind}s")
