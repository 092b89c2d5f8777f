"""Garbage collection of processes that only deliver runs."""

from __future__ import annotations

import gc

_NEW_OBJECTS = 50_000


def collect_garbage_rarely() -> None:
    """Collect garbage after 50,000 new objects instead of the 700 or 2,000 of Python.

    Client libraries consist of half a million objects, and a request of 1,000 metrics to a database creates tens of
    thousands. With the default, searches for garbage take a fifth of the CPU time of a delivery.
    """
    gc.set_threshold(_NEW_OBJECTS)


def skip_last_collection() -> None:
    """End the interpreter without a search for garbage, which takes longer than the delivery of a short run."""
    gc.freeze()
