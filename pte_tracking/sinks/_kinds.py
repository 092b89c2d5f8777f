"""Kinds of events that a backend shows, and the ways in which it shows them."""

from __future__ import annotations

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
    "dataset",
    "artifact",
    "checkpoint",
    "status",
]

#: How a backend shows a kind of events: in the way that it has for this kind, or only as a file or text of the run.
Display: TypeAlias = Literal["native", "artifact"]
