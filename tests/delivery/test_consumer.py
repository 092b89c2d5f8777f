"""One sink's way through the journal, interrupted at every point that it has."""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._delivery.cursor import Cursor, cursor_path
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._store import events, journal_reader
from pte_tracking._store.events import Metrics, Status
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Sink

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


class Killed(BaseException):
    """Stands for the end of the process: nothing is run after it."""


class Recording:
    """A run with one sink."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.directory = folder
        (folder / DELIVERY).mkdir(parents=True)
        self.manifest = Manifest.new(folder, "test")
        self.manifest = Manifest(self.manifest.id, "test", 0.0, merge_sink_entries([sink]))
        self.manifest.save(folder)
        self.journal = Journal(folder / JOURNAL)
        self.journal.append(events.RunStarted, self.manifest.id, "test", 1, "host")
        self._channel: SinkConsumer | None = None

    @property
    def channel(self) -> SinkConsumer:
        if self._channel is None:
            self._channel = SinkConsumer(self.directory, self.manifest, self.manifest.sinks[0])
        return self._channel

    @property
    def path(self) -> Path:
        return self.directory / JOURNAL

    def row(self, step: int, values: dict[str, float], **more: Any) -> JournalPosition:
        event = {"epoch": None, "elapsed_time": None, "log": "log", "sinks": None} | more
        self.journal.append(Metrics, step, values, *event.values())
        return self.journal.end

    def pump(self, times: int = 1000) -> None:
        """Deliver as the delivery process does; a process that is killed is followed by another one."""
        try:
            for _ in range(times):
                try:
                    if not self.channel.deliver_next():
                        return
                except Exception as error:
                    self.channel.record_failure(error)
        except Killed:
            self._channel = None

    def finish(self) -> None:
        self.pump()
        self.channel.finish("FINISHED")
        self._channel = None


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
        max_passes, is_deadly = self._plan[-1]
        self._passed += 1
        if self._passed > max_passes:
            self._passed = 0
            self._plan.pop()
            raise Killed(place) if is_deadly else OSError(place)


def points(contents: Iterator[tuple[Any, int]]) -> list[tuple[str, int, float]]:
    """The points of a history: the first of each key and step counts."""
    first: dict[tuple[str, int], float] = {}
    for event, _ in contents:
        if isinstance(event, Metrics):
            for key, value in event.values.items():
                first.setdefault((key, event.step), value)  # type: ignore[arg-type]
    return [(key, step, value) for (key, step), value in first.items()]


class SimulatedRun:
    """A run whose delivery is interrupted again and again."""

    def __init__(self, folder: Path, can_rewind: bool) -> None:
        self.module: Any = importlib.import_module("pte_probe")
        self.folder = folder / "probe"
        self.probe: Probe = self.module.Probe(self.folder)
        self.recording = Recording(folder / "run", self.probe.sink(can_rewind=can_rewind))
        self.step = 0
        self.count = 0.0
        self.marks: list[tuple[JournalPosition, int]] = []

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


@contextlib.contextmanager
def silence() -> Iterator[None]:
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


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
@settings(max_examples=60)
@given(program=st.lists(operations, min_size=3, max_size=25))
def test_consumer_after_any_interruption_delivers_points_once(can_rewind: bool, program: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder, silence():
        simulated = SimulatedRun(Path(folder), can_rewind)
        for name, *arguments in program:
            getattr(simulated, name)(*arguments)
        simulated.recording.finish()
        simulated.recording.journal.close()
        check_points(simulated, can_rewind)


def check_points(simulated: SimulatedRun, can_rewind: bool) -> None:
    expected = points(read_effective(simulated.recording.path))
    contents = simulated.probe.points()
    if can_rewind:
        assert contents == expected
        return
    places = [(key, step) for key, step, _ in contents]
    assert len(set(places)) == len(places), "a point is there twice"
    assert {(key, step) for key, step, _ in expected} <= set(places)


@pytest.fixture
def recording(tmp_path: Path, probe: Probe) -> Iterator[Recording]:
    created = Recording(tmp_path / "run", probe.sink())
    yield created
    created.journal.close()


def test_failed_write_loses_no_point_of_its_step(recording: Recording, probe: Probe) -> None:
    recording.pump()
    recording.row(1, {"a": 1.0})
    probe.control(fail="away")
    with pytest.raises(Exception, match="away") as info:
        recording.channel.deliver_next()
    recording.channel.record_failure(info.value)
    probe.control()
    recording.pump()
    assert probe.points() == [("a", 1, 1.0)]


def test_cursor_keeps_error_until_delivery_succeeds(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    probe.control(fail="no route to host")
    for _ in range(3):
        recording.pump(1)
    progress = Cursor.load(recording.directory, "probe")
    assert progress.error == "Trouble: no route to host"
    assert progress.error_time
    assert caplog.text.count("no route to host") == 1
    assert [str(one) for one in backlog(recording.directory, recording.manifest)] == [
        "1 events to probe (Trouble: no route to host)"
    ]
    probe.control()
    recording.pump()
    assert Cursor.load(recording.directory, "probe").error is None


def test_rejected_event_is_logged_and_rest_is_delivered(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(1, 10):
        recording.row(step, {"a": float(step)})
    probe.control(bad=[3, 5])
    recording.finish()
    assert [step for _, step, _ in probe.points()] == [1, 3, 5, 6, 7, 8, 9]
    assert Cursor.load(recording.directory, "probe").rejected == dict.fromkeys("35", "the control file says so")
    assert caplog.text.count("is refused and set aside: the control file says so") == 2
    assert backlog(recording.directory, recording.manifest) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_permanently_closed_sink_stops_delivery_and_logs_once(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    if when == "after":
        recording.pump()
    probe.control(closed="the run was deleted")
    recording.row(1, {"a": 1.0})
    recording.pump()
    probe.control()
    recording._channel = None
    recording.row(2, {"a": 2.0})
    recording.finish()
    assert probe.points() == []
    assert caplog.text.count("the run was deleted; nothing more is delivered there") == 1
    assert Cursor.load(recording.directory, "probe").closed_reason == "the run was deleted"
    assert backlog(recording.directory, recording.manifest) == []


@pytest.mark.parametrize("damage", ["", "{", "null", '{"position": "x"}', "\xff"])
def test_damaged_cursor_redelivers_all_events(recording: Recording, probe: Probe, damage: str) -> None:
    recording.row(1, {"a": 1.0})
    recording.pump()
    cursor_path(recording.directory, "probe").write_text(damage, encoding="latin-1")
    recording._channel = None
    recording.row(2, {"a": 2.0})
    recording.finish()
    assert probe.points() == [("a", 1, 1.0), ("a", 2, 2.0)]


def test_journal_truncated_and_regrown_is_redelivered(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"a": 1.0})
    end = recording.journal.position
    recording.row(2, {"a": 2.0})
    recording.pump()
    # As after a power failure: the last rows never reached the disk, and longer ones take their place.
    recording.journal.close()
    recording.path.write_bytes(recording.path.read_bytes()[:end])
    recording.journal = Journal(recording.path)
    recording._channel = None
    recording.row(3, {"a longer key": 3.0})
    recording.row(4, {"a": 4.0})
    recording.finish()
    assert probe.points() == [("a", 1, 1.0), ("a longer key", 3, 3.0), ("a", 4, 4.0)]


def test_torn_last_line_is_not_a_pending_event(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"a": 1.0})
    with open(recording.path, "ab") as file:
        file.write(b'{"kind":"metrics","seq":3,')
    recording.pump()
    recording.channel.finish("KILLED")
    assert probe.points() == [("a", 1, 1.0)]
    assert backlog(recording.directory, recording.manifest) == []


def test_rewind_at_journal_end_is_not_a_pending_event(recording: Recording, probe: Probe) -> None:
    mark = recording.row(1, {"a": 1.0})
    recording.pump()
    recording.row(2, {"a": 2.0})
    recording.journal.rewind(mark, 1)
    recording.pump()
    recording.channel.finish("KILLED")
    assert probe.points() == [("a", 1, 1.0)]
    assert backlog(recording.directory, recording.manifest) == []


def test_superseded_lists_only_events_delivered_to_sink(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"a": 1.0})
    mark = recording.row(2, {"a": 2.0})
    recording.row(3, {"a": 3.0})
    recording.row(3, {"a": 3.5}, log="other")
    recording.row(3, {"b": 4.0}, sinks=["json"])
    recording.row(3, {"b": 5.0}, sinks=["probe"])
    recording.pump()
    recording.row(4, {"a": 6.0})
    recording.journal.rewind(mark, 2)
    recording.row(3, {"a": 30.0})
    recording.finish()
    (note,) = probe.notes("rewound")
    assert note["gone"] == note["told"] == [4, 7]
    assert probe.points() == [("a", 1, 1.0), ("a", 2, 2.0), ("a", 3, 30.0)]


def test_rewind_within_step_delivers_each_key_once(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"b": 0.0})
    recording.row(2, {"a": 1.0})
    mark = recording.row(2, {"b": 2.0})
    recording.row(3, {"a": 3.0})
    recording.pump()
    recording.journal.rewind(mark, 2)
    recording.row(2, {"a": 10.0, "b": 20.0, "c": 30.0})
    recording.finish()
    assert probe.points() == [("b", 1, 0.0), ("a", 2, 1.0), ("b", 2, 2.0), ("c", 2, 30.0)]


def test_history_up_to_event_matches_state_at_that_event(recording: Recording) -> None:
    marks = [recording.row(step, {"a": float(step)}) for step in range(1, 6)]
    recording.journal.rewind(marks[1], 2)
    recording.row(9, {"a": 9.0}, sinks=["json"])
    recording.row(10, {"a": 10.0})
    view = recording.channel._view

    def steps(upto: int | None) -> list[int]:
        return [event.step for event in view.history(upto) if isinstance(event, Metrics)]

    assert steps(None) == [1, 2, 10]
    assert steps(marks[4].seq) == [1, 2, 3, 4, 5]
    assert steps(marks[4].seq + 1) == [1, 2]
    assert steps(marks[2].seq) == [1, 2, 3]
    assert steps(0) == []


def test_row_with_many_values_is_delivered_in_parts(recording: Recording, probe: Probe) -> None:
    values = {f"key {index}": float(index) for index in range(180)}
    recording.row(1, {"a": 0.0})
    recording.row(2, values)
    recording.row(3, {"a": 0.0})
    recording.finish()
    assert probe.points() == [("a", 1, 0.0), *((key, 2, value) for key, value in values.items()), ("a", 3, 0.0)]


def test_backlog_is_read_once(recording: Recording, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1000):
        recording.row(step, {"a": 1.0})
    bytes_read = 0
    original = journal_reader.find_events

    def count(path: Path, kind: Any, start: int = 0, end: int | None = None) -> Any:
        nonlocal bytes_read
        bytes_read += (path.stat().st_size if end is None else end) - start
        return original(path, kind, start, end)

    monkeypatch.setattr(journal_reader, "find_events", count)
    recording.finish()
    assert len(probe.points()) == 1000
    assert bytes_read <= 3 * recording.path.stat().st_size


def test_end_status_is_sent_once_and_again_after_resume(recording: Recording, probe: Probe) -> None:
    statuses: list[Status] = ["KILLED", "KILLED", "FINISHED"]
    for status in statuses:
        recording.pump()
        recording.channel.finish(status)
        recording._channel = None
    assert probe.statuses == ["KILLED", "FINISHED"]
    recording.journal.append(events.RunStarted, recording.manifest.id, "test", 1, "host", True)
    recording.finish()
    assert probe.statuses == ["KILLED", "FINISHED", "FINISHED"]
