"""Runs on a full disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pte_tracking._delivery import inline
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._runs.run import Run
from pte_tracking._store import journal
from pte_tracking._store.events import Metrics
from pte_tracking._store.journal import Journal
from pte_tracking._store.journal_reader import read, read_effective
from pte_tracking.testing import RecordedRun
from tests.disks import fill, small_disk
from tests.pictures import PNG

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 256 << 10) as created:
        yield created


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(inline, "_RETRY_SECONDS", 0.0)


def steps(path: Path) -> list[int]:
    return [event.step for event, _ in read(path) if isinstance(event, Metrics)]


def log(directory: Path) -> Any:
    return json.loads((directory / "log").read_text())


def test_journal_on_full_disk_buffers_events_and_stays_readable(disk: Path) -> None:
    path = disk / "journal.jsonl"
    opened = Journal(path)
    opened.append(Metrics, 0, {"a": 1.0})
    filler = fill(disk)
    for step in range(1, 500):
        assert opened.append(Metrics, step, {"a": 1.0})
        steps_read = steps(path)
        assert steps_read == list(range(len(steps_read)))
    assert 0 < len(steps_read) < 500
    with pytest.raises(OSError, match=r"journal\.jsonl: \d+ bytes of events are waiting for disk space"):
        opened.sync()
    filler.unlink()
    opened.append(Metrics, 500, {"a": 1.0})
    assert steps(path) == list(range(501))
    assert opened.sync() == (501, path.stat().st_size)
    opened.close()


def test_journal_buffer_is_bounded_and_dropped_events_are_logged(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal, "_MAX_PENDING_BYTES", 10_000)
    path = disk / "journal.jsonl"
    opened = Journal(path)
    filler = fill(disk)
    appended = [step for step in range(1000) if opened.append(Metrics, step, {"a": 1.0})]
    assert 100 < len(appended) < 1000
    assert opened.dropped == 1000 - len(appended)
    filler.unlink()
    assert opened.append(Metrics, 1000, {"a": 1.0})
    assert steps(path) == [*appended, 1000]
    opened.close()
    assert f"and {opened.dropped} later events." in caplog.text
    Journal(path).close()
    assert [event.seq for event, _ in read_effective(path)] == list(range(1, len(appended) + 2))


def test_journal_event_larger_than_buffer_is_written(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MAX_PENDING_BYTES", 1000)
    opened = Journal(disk / "journal.jsonl")
    assert opened.append(Metrics, 1, {"a" * 2000: 1.0})
    opened.close()
    assert steps(disk / "journal.jsonl") == [1]


@pytest.mark.parametrize("first_step", [0, 100])
def test_training_on_full_disk_continues_and_writes_all_later(
    disk: Path, tmp_path: Path, first_step: int, caplog: pytest.LogCaptureFixture
) -> None:
    directory = disk / "run"
    (tmp_path / "artifact").write_bytes(b"x" * 10_000)
    with Run(directory, params={"lr": 1}) as run:
        for step in range(first_step):
            run.log_metrics({"a": 1.0}, step)
        filler = fill(disk)
        for step in range(first_step, 300):
            run.log_metrics({"a": 1.0}, step)
            recorded = steps(directory / "journal.jsonl")
            assert recorded == list(range(len(recorded)))
            if (directory / "log").exists() and (directory / "log").stat().st_size:
                rows = [row["iteration"] for row in log(directory)]
                assert rows == list(range(len(rows)))
                assert len(rows) >= first_step, "existing rows were lost"
        run.log_metrics({"b": 1.0}, 300, log="another")
        run.log_figure("a", PNG + bytes(20_000), 300)
        run.log_artifact(tmp_path / "artifact")
        run.log_checkpoint(directory / "snapshot", 300, "00", 1)
        run.set_tags({"a": "b"})
        assert run.position(300).keys()
        with pytest.raises(OSError, match="waiting for disk space"):
            run.sync()
        filler.unlink()
        for step in range(301, 400):
            run.log_metrics({"a": 1.0}, step)
        run.log_metrics({"b": 1.0}, 400, log="another")
    assert [row["iteration"] for row in log(directory)] == [step for step in range(400) if step != 300]
    assert [row["iteration"] for row in json.loads((directory / "another").read_text())] == [300, 400]
    assert steps(directory / "journal.jsonl") == list(range(401))
    assert "No space left on device" in caplog.text
    before = (directory / "log").read_bytes()
    with Run(directory, resume=True):
        pass
    assert (directory / "log").read_bytes() == before
    assert "another" in json.loads((directory / "run.json").read_text())["files"]


def test_delivery_with_unsaved_cursor_delivers_after_space_is_freed(disk: Path, probe: Probe) -> None:
    recorded = RecordedRun(disk / "run", probe.sink())
    for step in range(60):
        recorded.log(step, {"a": 1.0})
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    filler = fill(disk)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as info:
            consumer.deliver_next()
        consumer.record_failure(info.value)
    filler.unlink()
    while consumer.deliver_next():
        pass
    assert [step for _, step, _ in probe.points()] == list(range(60))
    recorded.journal.close()


def test_run_ended_on_full_disk_can_be_resumed(disk: Path) -> None:
    directory = disk / "run"
    with Run(directory) as run:
        for step in range(10):
            run.log_metrics({"a": 1.0}, step)
        filler = fill(disk)
        for step in range(10, 500):
            run.log_metrics({"a": 1.0}, step)
    kept_rows = len(steps(directory / "journal.jsonl"))
    assert 10 <= kept_rows < 500
    filler.unlink()
    with Run(directory, resume=True) as run:
        run.log_metrics({"a": 1.0}, 1000)
    assert [row["iteration"] for row in log(directory)] == [*range(kept_rows), 1000]


def test_run_open_on_full_disk_raises_and_releases_directory(disk: Path) -> None:
    filler = fill(disk)
    with pytest.raises(OSError, match="No space left"):
        Run(disk / "run").open()
    filler.unlink()
    with Run(disk / "run") as run:
        run.log_metrics({"a": 1.0}, 1)
    assert len(log(disk / "run")) == 1
