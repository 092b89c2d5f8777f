"""One sink's way through the journal, interrupted at every point that it has."""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pte_tracking.runs import events
from pte_tracking.runs.channel import Channel
from pte_tracking.runs.events import Metrics
from pte_tracking.runs.journal import Journal, Mark, effective
from pte_tracking.runs.layout import DELIVERY, JOURNAL
from pte_tracking.runs.manifest import Manifest, entries
from pte_tracking.runs.sink import Sink

if TYPE_CHECKING:
    from tests.runs.probe.pte_probe import Probe


class Killed(BaseException):
    """Stands for the end of the process: nothing is run after it."""


class Recording:
    """A run with one sink."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.directory = folder
        (folder / DELIVERY).mkdir(parents=True)
        self.manifest = Manifest.new(folder, "test")
        self.manifest = Manifest(self.manifest.id, "test", 0.0, entries([sink]))
        self.manifest.save(folder)
        self.journal = Journal(folder / JOURNAL)
        self.journal.append(events.RunStarted, self.manifest.id, "test", 1, "host")
        self._channel: Channel | None = None

    @property
    def channel(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(self.directory, self.manifest, self.manifest.sinks[0])
        return self._channel

    @property
    def path(self) -> Path:
        return self.directory / JOURNAL

    def row(self, step: int, values: dict[str, float], **more: Any) -> Mark:
        event = {"epoch": None, "elapsed_time": None, "log": "log", "sinks": None} | more
        self.journal.append(Metrics, step, values, *event.values())
        return self.journal.mark

    def pump(self, times: int = 1000) -> None:
        """Deliver as the delivery process does; a process that is killed is followed by another one."""
        try:
            for _ in range(times):
                try:
                    if not self.channel.pump():
                        return
                except Exception as error:
                    self.channel.failed(error)
        except Killed:
            self._channel = None

    def finish(self) -> None:
        self.pump()
        self.channel.finish("FINISHED")
        self._channel = None
        self.journal.close()


class Interruptions:
    """Fails, or dies, at some of the steps that the probe sink reports.

    Args:
        plan: How many steps to let pass each time, and whether to die then.
    """

    def __init__(self, plan: list[tuple[int, bool]]) -> None:
        self._plan = plan[::-1]
        self._passed = 0

    def __call__(self, place: str) -> None:
        if not self._plan:
            return
        most, is_deadly = self._plan[-1]
        self._passed += 1
        if self._passed > most:
            self._passed = 0
            self._plan.pop()
            raise Killed(place) if is_deadly else OSError(place)


def points(found: Iterator[tuple[Any, int]]) -> list[tuple[str, int, float]]:
    """The points of a history: the first of each key and step counts."""
    first: dict[tuple[str, int], float] = {}
    for event, _ in found:
        if isinstance(event, Metrics):
            for key, value in event.values.items():
                first.setdefault((key, event.step), value)  # type: ignore[arg-type]
    return [(key, step, value) for (key, step), value in first.items()]


class Life:
    """A run whose delivery is interrupted again and again."""

    def __init__(self, folder: Path, can_rewind: bool) -> None:
        self.module: Any = importlib.import_module("pte_probe")
        self.folder = folder / "probe"
        self.probe: Probe = self.module.Probe(self.folder)
        self.recording = Recording(folder / "run", self.probe.sink(can_rewind=can_rewind))
        self.step = 0
        self.count = 0.0
        self.marks: list[tuple[Mark, int]] = []

    def append(self, rows: int, keys: list[str], advance: int) -> None:
        for _ in range(rows):
            self.count += 1
            self.step += advance
            self.marks.append((self.recording.row(self.step, dict.fromkeys(keys, self.count)), self.step))

    def rewind(self, index: int) -> None:
        if self.marks:
            mark, self.step = self.marks[index % len(self.marks)]
            self.recording.journal.rewind(mark, self.step)

    def pump(self, times: int, plan: list[tuple[int, bool]]) -> None:
        self.module.hook = Interruptions(plan)
        self.recording.pump(times)
        self.module.hook = lambda place: None

    def restart(self) -> None:
        self.recording._channel = None


operations = st.one_of(
    st.tuples(
        st.just("append"),
        st.integers(1, 6),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
        st.integers(0, 1),
    ),
    st.tuples(st.just("rewind"), st.integers(0, 8)),
    st.tuples(st.just("pump"), st.integers(1, 4), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=3)),
    st.tuples(st.just("restart")),
)


@pytest.mark.parametrize("can_rewind", [True, False])
@settings(max_examples=60, deadline=None)
@given(program=st.lists(operations, min_size=3, max_size=25))
def test_every_point_that_holds_is_there_once_whatever_interrupts(
    can_rewind: bool, program: list[tuple[Any, ...]]
) -> None:
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), can_rewind)
        for name, *arguments in program:
            getattr(life, name)(*arguments)
        life.recording.finish()
        check_points(life, can_rewind)
    logging.disable(logging.NOTSET)


def check_points(life: Life, can_rewind: bool) -> None:
    expected = points(effective(life.recording.path))
    found = life.probe.points()
    if can_rewind:
        assert found == expected
        return
    places = [(key, step) for key, step, _ in found]
    assert len(set(places)) == len(places), "a point is there twice"
    assert {(key, step) for key, step, _ in expected} <= set(places)
