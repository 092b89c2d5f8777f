"""Delivery to one sink, interrupted at every possible point."""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._delivery.cursor import Cursor, cursor_path
from pte_tracking._delivery.delivery_loop import deliver
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._store import events, journal_reader
from pte_tracking._store.events import Metrics, Status
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.status import read_status
from pte_tracking.sinks import Sink

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


class Killed(BaseException):
    """Simulates the end of the process. No cleanup runs afterwards."""


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
        self._consumer: SinkConsumer | None = None

    @property
    def consumer(self) -> SinkConsumer:
        if self._consumer is None:
            self._consumer = SinkConsumer(self.directory, self.manifest, self.manifest.sinks[0])
        return self._consumer

    @property
    def path(self) -> Path:
        return self.directory / JOURNAL

    def row(self, step: int, values: dict[str, float], **fields: Any) -> JournalPosition:
        event = {"epoch": None, "elapsed_time": None, "log": "log", "sinks": None} | fields
        self.journal.append(Metrics, step, values, *event.values())
        return self.journal.end

    def deliver(self, times: int = 1000) -> None:
        """Deliver as the delivery process does. A killed process is replaced by a new one."""
        try:
            for _ in range(times):
                try:
                    if not self.consumer.deliver_next():
                        return
                except Exception as error:
                    self.consumer.record_failure(error)
        except Killed:
            self._consumer = None

    def finish(self) -> None:
        self.deliver()
        self.consumer.finish(read_status(self.directory))
        self._consumer = None


class Interruptions:
    """Raises an error, or ends the process, at some of the steps that the probe sink reports.

    Args:
        plan: Number of steps to pass before each interruption, and whether the interruption ends the process.
    """

    def __init__(self, plan: list[tuple[int, bool]]) -> None:
        self._plan = plan[::-1]
        self._passed = 0

    def __call__(self, step_name: str) -> None:
        if not self._plan:
            return
        max_passes, is_deadly = self._plan[-1]
        self._passed += 1
        if self._passed > max_passes:
            self._passed = 0
            self._plan.pop()
            raise Killed(step_name) if is_deadly else OSError(step_name)


def points(found_points: Iterator[tuple[Any, int]]) -> list[tuple[str, int, float]]:
    """Return the data points of a history: the first value of each key and step."""
    first: dict[tuple[str, int], float] = {}
    for event, _ in found_points:
        if isinstance(event, Metrics):
            for key, value in event.values.items():
                first.setdefault((key, event.step), value)  # type: ignore[arg-type]
    return [(key, step, value) for (key, step), value in first.items()]


class SimulatedRun:
    """Run whose delivery is interrupted repeatedly."""

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
            position, self.step = self.marks[index % len(self.marks)]
            self.recording.journal.rewind(position, self.step)

    def deliver(self, times: int, plan: list[tuple[int, bool]]) -> None:
        self.module.hook = Interruptions(plan)
        self.recording.deliver(times)
        self.module.hook = lambda step_name: None

    def restart(self) -> None:
        self.recording._consumer = None


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
    st.tuples(st.just("deliver"), st.integers(1, 4), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=3)),
    st.tuples(st.just("restart")),
)


@pytest.mark.parametrize("can_rewind", [True, False])
@settings(max_examples=60)
@given(program=st.lists(operations, min_size=3, max_size=25))
@example(
    # The second pass omits a key that the first pass and the third pass have.
    program=[
        ("append", 2, ["a"], 1),
        ("deliver", 1, []),
        ("rewind", 0),
        ("append", 2, ["b"], 1),
        ("deliver", 1, []),
        ("append", 1, ["b"], 1),
        ("deliver", 1, []),
        ("rewind", 0),
        ("append", 1, ["a"], 1),
    ]
)
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
    found_points = simulated.probe.points()
    if can_rewind:
        assert found_points == expected
        return
    delivered_keys = [(key, step) for key, step, _ in found_points]
    assert len(set(delivered_keys)) == len(delivered_keys), "a data point was delivered twice"
    assert {(key, step) for key, step, _ in expected} <= set(delivered_keys)


@pytest.fixture
def recording(tmp_path: Path, probe: Probe) -> Iterator[Recording]:
    created = Recording(tmp_path / "run", probe.sink())
    yield created
    created.journal.close()


def test_failed_write_loses_no_point_of_its_step(recording: Recording, probe: Probe) -> None:
    recording.deliver()
    recording.row(1, {"a": 1.0})
    probe.control(fail="away")
    with pytest.raises(Exception, match="away") as info:
        recording.consumer.deliver_next()
    recording.consumer.record_failure(info.value)
    probe.control()
    recording.deliver()
    assert probe.points() == [("a", 1, 1.0)]


def test_abandoned_consumer_saves_no_cursor(recording: Recording, probe: Probe) -> None:
    recording.deliver()
    saved = cursor_path(recording.directory, "probe").read_bytes()
    recording.consumer.abandon()
    recording.row(1, {"a": 1.0})
    delivered = recording.consumer.deliver_next()
    recording.consumer.record_failure(OSError("away"))
    assert delivered is not None
    assert probe.points() == [("a", 1, 1.0)]
    assert cursor_path(recording.directory, "probe").read_bytes() == saved


def test_deliver_next_returns_batch_and_seconds(recording: Recording) -> None:
    recording.deliver()
    assert recording.consumer.deliver_next() is None
    position = recording.row(1, {"a": 1.0})
    delivered = recording.consumer.deliver_next()
    assert delivered is not None
    assert [event.seq for event in delivered.batch.events] == [2]
    assert delivered.batch.end == recording.journal.position
    assert delivered.batch.is_metrics_only
    assert not delivered.batch.is_full
    assert 0 < delivered.seconds < 10
    recording.row(2, {"a": 2.0})
    recording.deliver()
    recording.journal.rewind(position, 1)
    recording.row(2, {"a": 3.0})
    delivered = recording.consumer.deliver_next()
    assert delivered is not None
    assert [type(event) for event in delivered.batch.events] == [events.Rewound]
    assert not delivered.batch.is_metrics_only


def test_cursor_keeps_error_until_delivery_succeeds(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    probe.control(fail="no route to host")
    for _ in range(3):
        recording.deliver(1)
    cursor = Cursor.load(recording.directory, "probe")
    assert cursor.error == "ProbeError: no route to host"
    assert cursor.error_kind == "other"
    assert cursor.error_time
    assert caplog.text.count("no route to host") == 1
    assert [str(sink) for sink in backlog(recording.directory, recording.manifest)] == [
        "1 pending event for probe (ProbeError: no route to host)"
    ]
    probe.control()
    recording.deliver()
    cursor = Cursor.load(recording.directory, "probe")
    assert (cursor.error, cursor.error_kind, cursor.error_time) == (None, None, None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError("wrong password"), "auth"),
        (ConnectionRefusedError("refused"), "network"),
        (TimeoutError("timed out"), "network"),
        (OSError("no route to host"), "network"),
        (RuntimeError("PermissionError: in the text only"), "other"),
    ],
)
def test_cursor_keeps_kind_of_error(recording: Recording, error: Exception, kind: str) -> None:
    recording.consumer.record_failure(error)
    assert Cursor.load(recording.directory, "probe").error_kind == kind


def test_rejected_event_is_logged_and_rest_is_delivered(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(1, 10):
        recording.row(step, {"a": float(step)})
    probe.control(bad=[3, 5])
    recording.finish()
    assert [step for _, step, _ in probe.points()] == [1, 3, 5, 6, 7, 8, 9]
    assert Cursor.load(recording.directory, "probe").rejected == dict.fromkeys("35", "the control file says so")
    assert caplog.messages == [
        "probe: skipping rejected event 3: the control file says so",
        "probe: skipping rejected event 5 for the same reason",
    ]
    assert backlog(recording.directory, recording.manifest) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_closed_sink_is_pending_and_retried_by_next_consumer(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    if when == "after":
        recording.deliver()
    probe.control(closed="the run was deleted")
    recording.row(1, {"a": 1.0})
    recording.deliver()
    probe.control()
    recording.row(2, {"a": 2.0})
    recording.deliver()
    assert recording.consumer.is_closed
    assert probe.points() == []
    assert caplog.text.count("delivery stopped: the run was deleted") == 1
    (pending,) = backlog(recording.directory, recording.manifest)
    assert (pending.is_closed, pending.reason) == (True, "the run was deleted")
    recording._consumer = None
    recording.finish()
    assert probe.points() == [("a", 1, 1.0), ("a", 2, 2.0)]
    assert backlog(recording.directory, recording.manifest) == []


def test_sink_closed_after_last_event_is_pending_until_verified(recording: Recording, probe: Probe) -> None:
    recording.journal.append(events.RunEnded, "FINISHED", None)
    recording.finish()
    probe.control(closed="the run was deleted")
    recording.consumer.verify()
    assert [str(sink) for sink in backlog(recording.directory, recording.manifest)] == [
        "delivery stopped for probe (the run was deleted)"
    ]
    probe.control()
    recording._consumer = None
    recording.deliver()
    assert backlog(recording.directory, recording.manifest) == []
    assert probe.statuses[-1] == "FINISHED"


def test_lost_run_is_delivered_again_from_first_event(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    recording.row(1, {"a": 1.0})
    recording.finish()
    for file in probe.folder.glob("*.jsonl"):
        file.unlink()
    probe.control(lost="the database is new")
    recording.consumer.verify()
    assert Cursor.load(recording.directory, "probe").position == 0
    assert "the database is new" in caplog.text
    probe.control()
    recording.finish()
    assert probe.points() == [("a", 1, 1.0)]


def test_run_lost_before_its_end_is_delivered_again_by_loop(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"a": 1.0})
    recording.deliver()
    recording._consumer = None
    for file in probe.folder.glob("*.jsonl"):
        file.unlink()
    probe.control(lost_once="the database is new")
    deliver(recording.directory, lambda idle_seconds: idle_seconds > 30)
    assert probe.points() == [("a", 1, 1.0)]
    assert backlog(recording.directory, recording.manifest) == []


def test_backend_that_stays_lost_closes_sink(recording: Recording, probe: Probe) -> None:
    probe.control(lost="there is no such run")
    recording.deliver()
    assert recording.consumer.is_closed


def test_other_end_status_than_journal_is_pending(recording: Recording, probe: Probe) -> None:
    recording.deliver()
    recording.consumer.finish("KILLED")
    recording.journal.append(events.RunEnded, "FINISHED", None)
    recording.deliver()
    assert [str(sink) for sink in backlog(recording.directory, recording.manifest)] == ["pending end status for probe"]
    recording.finish()
    assert backlog(recording.directory, recording.manifest) == []
    assert probe.statuses == ["KILLED", "FINISHED"]


@pytest.mark.parametrize("damage", ["", "{", "null", '{"position": "x"}', "\xff"])
def test_damaged_cursor_redelivers_all_events(recording: Recording, probe: Probe, damage: str) -> None:
    recording.row(1, {"a": 1.0})
    recording.deliver()
    cursor_path(recording.directory, "probe").write_text(damage, encoding="latin-1")
    recording._consumer = None
    recording.row(2, {"a": 2.0})
    recording.finish()
    assert probe.points() == [("a", 1, 1.0), ("a", 2, 2.0)]


def test_journal_truncated_and_regrown_is_redelivered(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"a": 1.0})
    end = recording.journal.position
    recording.row(2, {"a": 2.0})
    recording.deliver()
    # Simulates a power failure: the last rows never reached the disk, and longer rows follow.
    recording.journal.close()
    recording.path.write_bytes(recording.path.read_bytes()[:end])
    recording.journal = Journal(recording.path)
    recording._consumer = None
    recording.row(3, {"a longer key": 3.0})
    recording.row(4, {"a": 4.0})
    recording.finish()
    assert probe.points() == [("a", 1, 1.0), ("a longer key", 3, 3.0), ("a", 4, 4.0)]


def test_batch_whose_end_was_lost_with_the_power_is_delivered_up_to_the_new_events(
    recording: Recording, probe: Probe
) -> None:
    recording.row(1, {"a": 1.0})
    recording.deliver()
    size = recording.path.stat().st_size
    cursor = Cursor.load(recording.directory, recording.consumer.key)
    cursor.batch_end = size + 10  # in the middle of the next line
    cursor_path(recording.directory, recording.consumer.key).write_bytes(msgspec.json.encode(cursor))
    recording._consumer = None
    recording.row(2, {"a": 2.0})
    recording.finish()
    assert probe.points() == [("a", 1, 1.0), ("a", 2, 2.0)]


def test_torn_last_line_is_not_a_pending_event(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"a": 1.0})
    with open(recording.path, "ab") as file:
        file.write(b'{"kind":"metrics","seq":3,')
    recording.deliver()
    recording.consumer.finish("KILLED")
    assert probe.points() == [("a", 1, 1.0)]
    assert backlog(recording.directory, recording.manifest) == []


def test_rewind_at_journal_end_is_not_a_pending_event(recording: Recording, probe: Probe) -> None:
    position = recording.row(1, {"a": 1.0})
    recording.deliver()
    recording.row(2, {"a": 2.0})
    recording.journal.rewind(position, 1)
    recording.deliver()
    recording.consumer.finish("KILLED")
    assert probe.points() == [("a", 1, 1.0)]
    assert backlog(recording.directory, recording.manifest) == []


def test_superseded_lists_only_events_delivered_to_sink(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"a": 1.0})
    position = recording.row(2, {"a": 2.0})
    recording.row(3, {"a": 3.0})
    recording.row(3, {"a": 3.5}, log="other")
    recording.row(3, {"b": 4.0}, sinks=["json"])
    recording.row(3, {"b": 5.0}, sinks=["probe"])
    recording.deliver()
    recording.row(4, {"a": 6.0})
    recording.journal.rewind(position, 2)
    recording.row(3, {"a": 30.0})
    recording.finish()
    (note,) = probe.notes("rewound")
    assert note["removed"] == note["superseded"] == [4, 7]
    assert probe.points() == [("a", 1, 1.0), ("a", 2, 2.0), ("a", 3, 30.0)]


def test_rewind_within_step_delivers_each_key_once(recording: Recording, probe: Probe) -> None:
    recording.row(1, {"b": 0.0})
    recording.row(2, {"a": 1.0})
    position = recording.row(2, {"b": 2.0})
    recording.row(3, {"a": 3.0})
    recording.deliver()
    recording.journal.rewind(position, 2)
    recording.row(2, {"a": 10.0, "b": 20.0, "c": 30.0})
    recording.finish()
    assert probe.points() == [("b", 1, 0.0), ("a", 2, 1.0), ("b", 2, 2.0), ("c", 2, 30.0)]


def test_history_up_to_event_matches_state_at_that_event(recording: Recording) -> None:
    marks = [recording.row(step, {"a": float(step)}) for step in range(1, 6)]
    recording.journal.rewind(marks[1], 2)
    recording.row(9, {"a": 9.0}, sinks=["json"])
    recording.row(10, {"a": 10.0})
    view = recording.consumer._view

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
        recording.deliver()
        recording.consumer.finish(status)
        recording._consumer = None
    assert probe.statuses == ["KILLED", "FINISHED"]
    recording.journal.append(events.RunStarted, recording.manifest.id, "test", 1, "host", True)
    recording.journal.append(events.RunEnded, "FINISHED", None)
    recording.finish()
    assert probe.statuses == ["KILLED", "FINISHED", "FINISHED"]
