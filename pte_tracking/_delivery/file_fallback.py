"""Delivery of files as artifacts to backends that do not show their kind of event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pte_tracking.sinks import FILE_KINDS, Display, EventKind, find_display, to_artifact

#: Kinds of the first releases. A sink that does not declare what it shows may show these kinds.
_UNDECLARED: Mapping[EventKind, Display] = dict.fromkeys(("figure", "image", "artifact"), "native")


class FileFallback:
    """Converter of events with a file to artifacts, for a sink that shows artifacts and not the kind of the event.

    Args:
        shows: Declaration of the sink; see :attr:`pte_tracking.sinks.Sink.shows`. A sink without a declaration receives
            figures and images as they are, and the later kinds as artifacts.
    """

    def __init__(self, shows: Mapping[EventKind, Display] | None) -> None:
        declared = _UNDECLARED if shows is None else shows
        self._kinds = frozenset(
            kind for kind in FILE_KINDS if kind not in declared and find_display(declared, kind) == "artifact"
        )

    def convert(self, event: Any) -> Any:
        """Return the artifact of an event, in the directory of its file, or the event itself."""
        return to_artifact(event) if event.__struct_config__.tag in self._kinds else event
