"""Kinds of events that a backend shows, and the ways in which it shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

#: Kind of event that a user sees in a backend. ``"status"`` is the final status of the run.
EventKind: TypeAlias = Literal[
    "metrics",
    "params",
    "tags",
    "figure",
    "image",
    "histogram",
    "text",
    "table",
    "html",
    "audio",
    "video",
    "dataset",
    "artifact",
    "checkpoint",
    "model",
    "status",
]

#: How a backend shows a kind of event: in the way that it has for this kind, or only as a file or text of the run.
Display: TypeAlias = Literal["native", "artifact"]

#: Kinds whose events have one file or directory. A sink that shows artifacts, but not this kind, receives it as an
#: artifact.
FILE_KINDS: frozenset[EventKind] = frozenset({"figure", "image", "table", "html", "audio", "video", "model"})


def find_display(shows: Mapping[EventKind, Display], kind: EventKind) -> Display | None:
    """Return how a backend shows a kind of event, including files that it receives as artifacts.

    Args:
        shows: Declaration of the sink; see :attr:`Sink.shows`.
        kind: Kind of events.

    Returns:
        The display. None if the backend does not show the kind.

    Example:
        >>> from pte_tracking.sinks import find_display
        >>> find_display({"artifact": "native"}, "video")
        'artifact'
    """
    if kind in shows:
        return shows[kind]
    return "artifact" if kind in FILE_KINDS and "artifact" in shows else None
