"""Phases of a training, and which may follow each other."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """Phase of a training."""

    #: The manager is constructed. All extensions can be added, and a state can be restored.
    NEW = "new"
    #: All ranks have joined to open the run, for example in ``resume()``.
    OPEN = "open"
    #: The extensions are initialized, and no iteration is in progress.
    RUNNING = "running"
    #: The ``with`` block of an iteration is in progress.
    IN_ITERATION = "in iteration"
    #: The extensions are finalized. No phase follows.
    ENDED = "ended"


#: The phases that may follow each phase.
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.NEW: frozenset({Phase.OPEN, Phase.ENDED}),
    Phase.OPEN: frozenset({Phase.OPEN, Phase.RUNNING, Phase.ENDED}),
    Phase.RUNNING: frozenset({Phase.IN_ITERATION, Phase.ENDED}),
    Phase.IN_ITERATION: frozenset({Phase.RUNNING, Phase.ENDED}),
    Phase.ENDED: frozenset(),
}
