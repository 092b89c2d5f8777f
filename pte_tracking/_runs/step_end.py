"""End of a step in the journal, to which a run is rewound when another library restores the training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pte_tracking._store.events import (
    AnyEvent,
    Audio,
    Histogram,
    Html,
    Image,
    Metrics,
    RunEnded,
    RunStarted,
    Table,
    Text,
    Video,
)
from pte_tracking._store.journal import JournalPosition
from pte_tracking._store.journal_reader import read_effective

_logger = logging.getLogger("pte_tracking")

#: Class of an event, and its key or, for a row, one of its keys.
_Series: TypeAlias = tuple[type[AnyEvent], str]
#: Media of one key and step that sinks show several times. A figure replaces the earlier one.
_REPEATED_MEDIA = (Histogram, Image, Text, Table, Html, Audio, Video)


class KeptPoints:
    """Data points up to the step at which a run was resumed, which are not logged a second time.

    Args:
        directory: Run directory.
        step: Last step before the resume.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self._directory = directory
        self._step = step
        #: Last step of each key. A dictionary of all points of a long run would take gigabytes.
        self._last_steps: dict[_Series, int] = {}
        self._is_logged = False

    def add(self, event: AnyEvent) -> None:
        """Remember the keys and the step of an event."""
        if isinstance(event, Metrics):
            for key in event.points:
                self._note((Metrics, key), event.step)
        elif isinstance(event, _REPEATED_MEDIA):
            self._note((type(event), event.key), event.step)

    def without_known(self, kind: type[AnyEvent], fields: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the fields of a new event without the points that were logged before. Empty if nothing remains.

        Args:
            kind: Class of the event.
            fields: Fields of the event after ``seq`` and ``time``.
        """
        if kind is Metrics:
            step, values, *rest = fields
            if step > self._step:
                return fields
            new = {key: value for key, value in values.items() if not self._is_known(kind, key, step)}
            return (step, new, *rest) if new else ()
        if kind in _REPEATED_MEDIA and self._is_known(kind, *fields[:2]):
            return ()
        return fields

    def _note(self, series: _Series, step: int) -> None:
        if step > self._last_steps.get(series, step - 1):
            self._last_steps[series] = step

    def _is_known(self, kind: type[AnyEvent], key: str, step: int) -> bool:
        if step > self._last_steps.get((kind, key), step - 1):
            return False
        if not self._is_logged:
            self._is_logged = True
            _logger.warning(
                "%s: %r was logged again at step %d, after the run was resumed at step %d. The earlier value is kept. "
                "Other such values are dropped without a message.",
                *(self._directory, key, step, self._step),
            )
        return True


class StepEnd(NamedTuple):
    """End of a step in the effective history.

    Attributes:
        target: Position before the first event of a later step. None if there is no such event.
        kept: Events after the position that belong to earlier steps or to no step.
        superseded: Number of events of later steps.
        points: Data points up to the step.
    """

    target: JournalPosition | None
    kept: list[AnyEvent]
    superseded: int
    points: KeptPoints

    @classmethod
    def find(cls, journal: Path, step: int, session_seq: int) -> StepEnd:
        """Search the journal of a run.

        Args:
            journal: Journal file.
            step: Last step to keep.
            session_seq: Sequence number of the last event before this session of the run, whose start is kept.
        """
        end, target, superseded = JournalPosition(0, 0), None, 0
        kept: list[AnyEvent] = []
        points = KeptPoints(journal.parent, step)
        for event, position in read_effective(journal):
            if getattr(event, "step", step) > step:
                target = target or end
                superseded += 1
                continue
            points.add(event)
            is_earlier_session = isinstance(event, RunStarted) and event.seq <= session_seq
            if target and not is_earlier_session and not isinstance(event, RunEnded):
                kept.append(event)
            end = JournalPosition(event.seq, position)
        return cls(target, kept, superseded, points)
