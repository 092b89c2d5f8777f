"""Events whose files wait for the backend while other events are delivered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.delivery_loop import deliver
from pte_tracking._store import events
from tests.delivery.test_consumer import Recording

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


@pytest.fixture
def recording(tmp_path: Path, probe: Probe) -> Iterator[Recording]:
    created = Recording(tmp_path / "run", probe.sink())
    yield created
    created.journal.close()


def log_text(recording: Recording, key: str) -> None:
    recording.journal.append(events.Text, key, 1, "a text")


def delivered_texts(probe: Probe) -> list[str]:
    return [event.key for event in probe.events() if isinstance(event, events.Text)]


def test_postponed_event_waits_while_metrics_and_end_are_delivered(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    probe.control(later=[2])
    log_text(recording, "first")
    recording.deliver()
    recording.row(1, {"a": 1.0})
    log_text(recording, "second")  # Not attempted before the first one, so that files keep their order.
    recording.journal.append(events.RunEnded, "FINISHED", None)
    recording.deliver()
    assert not recording.consumer.retry_postponed(1)
    recording.consumer.finish("FINISHED")
    assert probe.points() == [("a", 1, 1.0)]
    assert probe.statuses == ["FINISHED"]
    assert caplog.text.count("files are not stored yet") == 1
    assert [str(sink) for sink in backlog(recording.directory, recording.manifest)] == [
        "2 pending events for probe (OSError: the store is full)"
    ]
    probe.control()
    recording._consumer = None
    assert recording.consumer.retry_postponed(1)
    assert sorted(delivered_texts(probe)) == ["first", "second"]
    assert backlog(recording.directory, recording.manifest) == []
    assert Cursor.load(recording.directory, "probe").error is None


def test_event_postponed_again_lets_others_pass(recording: Recording, probe: Probe) -> None:
    probe.control(later=[2])
    for key in ("bad", "good"):
        log_text(recording, key)
        recording.deliver()
    assert not recording.consumer.retry_postponed(1)
    recording.consumer.retry_postponed(1)
    assert delivered_texts(probe) == ["good"]


def test_rewind_drops_superseded_postponed_events(recording: Recording, probe: Probe) -> None:
    probe.control(later=[2, 4])
    log_text(recording, "kept")
    position = recording.row(1, {"a": 1.0})
    log_text(recording, "superseded")
    recording.deliver()
    recording.journal.rewind(position, 1)
    recording.deliver()
    probe.control()
    recording.finish()
    assert recording.consumer.retry_postponed(1)
    assert delivered_texts(probe) == ["kept"]
    assert backlog(recording.directory, recording.manifest) == []


def test_postponed_event_that_is_rejected_later_is_listed(recording: Recording, probe: Probe) -> None:
    probe.control(later=[2])
    log_text(recording, "text")
    recording.deliver()
    probe.control(bad=[2])
    assert recording.consumer.retry_postponed(1)
    cursor = Cursor.load(recording.directory, "probe")
    assert (cursor.postponed, cursor.rejected) == ({}, {"2": "the control file says so"})


def test_failed_retry_keeps_event_postponed(recording: Recording, probe: Probe) -> None:
    probe.control(later=[2])
    log_text(recording, "text")
    recording.deliver()
    probe.control(fail="no route to host")
    with pytest.raises(Exception, match="no route") as info:
        recording.consumer.retry_postponed(1)
    recording.consumer.record_failure(info.value)
    probe.control()
    assert recording.consumer.retry_postponed(1)
    assert delivered_texts(probe) == ["text"]


def test_foreground_delivery_stores_postponed_events_of_ended_run(recording: Recording, probe: Probe) -> None:
    probe.control(later=[2])
    log_text(recording, "text")
    recording.journal.append(events.RunEnded, "FINISHED", None)
    deliver(recording.directory, lambda idle_seconds: bool(probe.statuses))
    assert probe.statuses == ["FINISHED"]
    assert len(Cursor.load(recording.directory, "probe").postponed) == 1
    probe.control()
    deliver(recording.directory, lambda idle_seconds: idle_seconds > 30)
    assert delivered_texts(probe) == ["text"]
    assert backlog(recording.directory, recording.manifest) == []
