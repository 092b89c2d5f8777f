"""JSON log: valid after every row and after any fault, in Chainer's format."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pte_backends.json import JsonSink
from pte_backends.json._log_file import LogFile
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._runs.run import Run
from pte_tracking._store import events
from pte_tracking._store.events import Metrics
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest
from tests.backends.file_changes import replace, truncate


def reject_constant(token: str) -> None:
    raise AssertionError(f"{token} is not strict JSON")


def log(directory: Path, name: str = "log") -> Any:
    return json.loads((directory / name).read_bytes(), parse_constant=reject_constant)


class Recording:
    """Run that is written as the training process writes it, with operations that simulate faults."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / DELIVERY).mkdir(parents=True)
        new_manifest = Manifest.new(directory, "test")
        self.manifest = Manifest(new_manifest.id, "test", 0.0, merge_sink_entries([JsonSink()]))
        self.journal = Journal(directory / JOURNAL)
        self.positions: list[JournalPosition] = []
        self._consumer: SinkConsumer | None = None

    @property
    def consumer(self) -> SinkConsumer:
        if self._consumer is None:
            self._consumer = SinkConsumer(self.directory, self.manifest, self.manifest.sinks[0])
            while self._consumer.deliver_next():
                pass
        return self._consumer

    def row(self, step: int, values: dict[str, Any], log: str = "log", sinks: list[str] | None = None) -> None:
        consumer = self.consumer
        event = self.journal.append(Metrics, step, values, step / 10, float(step), log, sinks)
        assert event
        self.positions.append(self.journal.end)
        consumer.deliver_event(event, self.journal.position)

    def rewind(self, index: int) -> None:
        if self.positions:
            consumer = self.consumer
            self.journal.rewind(self.positions[index % len(self.positions)], 0)
            while consumer.deliver_next():
                pass

    def save(self) -> None:
        self.consumer.save()

    def kill(self) -> None:
        self._consumer = None

    def delete_logs(self) -> None:
        for path in self.directory.glob("log*"):
            path.unlink()
        self.kill()

    def expected(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in row.items()
            }
            for event, _ in read_effective(self.directory / JOURNAL)
            if isinstance(event, Metrics) and event.log == name and (event.sinks is None or "json" in event.sinks)
            for row in [
                event.values | {"epoch": event.epoch, "iteration": event.step, "elapsed_time": event.elapsed_time}
            ]
        ]

    def check(self) -> None:
        for name in ("log", "log2"):
            if (self.directory / name).exists():
                assert log(self.directory, name) == self.expected(name)


def test_log_rows_match_chainer_format(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_metrics({"main/loss": 0.5, "val/acc": 1}, 938, epoch=1, elapsed_time=2.5)
        run.log_metrics({"main/loss": 0.25}, 1876, epoch=2, elapsed_time=5.0)
    assert (tmp_path / "log").read_text() == (
        "[\n"
        '{"main/loss":0.5,"val/acc":1,"epoch":1,"iteration":938,"elapsed_time":2.5},\n'
        '{"main/loss":0.25,"epoch":2,"iteration":1876,"elapsed_time":5.0}\n'
        "]\n"
    )


@pytest.mark.parametrize("damage", [Path.unlink, truncate, replace])
@pytest.mark.parametrize("seconds", [0.0, 2.1], ids=["at once", "during training"])
def test_log_changed_by_another_program_is_written_again(
    tmp_path: Path, damage: Callable[[Path], object], seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    with Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
        damage(tmp_path / "log")
        run.log_metrics({"a": 2.0}, 2)
        time.sleep(seconds)
        run.log_metrics({"a": 3.0}, 3)
        time.sleep(seconds)
        run.log_metrics({"a": 4.0}, 4)
        if seconds:
            assert [row["iteration"] for row in log(tmp_path)] == [1, 2, 3, 4]
    assert [row["iteration"] for row in log(tmp_path)] == [1, 2, 3, 4]
    assert "log was deleted, replaced, or truncated, and is written again" in caplog.text


def test_log_of_zeros_is_rebuilt_at_resume(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
    (tmp_path / "log").write_bytes(bytes((tmp_path / "log").stat().st_size))
    with Run(tmp_path, resume=True) as run:
        run.log_metrics({"a": 2.0}, 2)
    assert log(tmp_path) == [{"a": 1.0, "iteration": 1}, {"a": 2.0, "iteration": 2}]


def test_log_non_finite_values_become_null(tmp_path: Path) -> None:
    values = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "tiny": 5e-324, "huge": 1.7e308, "int": 2**62}
    with Run(tmp_path) as run:
        run.log_metrics(values, 1)
    assert log(tmp_path) == [values | {"nan": None, "inf": None, "-inf": None, "iteration": 1}]


rows = st.tuples(
    st.just("row"),
    st.integers(0, 9),
    st.dictionaries(st.text(min_size=1, max_size=5), st.floats() | st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.sampled_from(["log", "log", "log2"]),
    st.sampled_from([None, None, ["json"], ["other"]]),
)
operations = st.one_of(
    rows,
    rows,
    st.tuples(st.just("rewind"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["save", "kill", "delete_logs"])),
)


@settings(max_examples=100)
@given(st.lists(operations, max_size=25))
def test_log_after_every_operation_equals_effective_history(program: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recording = Recording(Path(folder, "run"))
        for name, *arguments in program:
            getattr(recording, name)(*arguments)
            if name not in ("kill", "delete_logs"):
                recording.check()
        recording.row(99, {"last": 1.0})
        recording.row(99, {"last": 1.0}, "log2")
        recording.consumer.finish("FINISHED")
        for log_name in ("log", "log2"):
            assert log(recording.directory, log_name) == recording.expected(log_name)
        recording.journal.close()


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    instance = Recording(tmp_path / "run")
    yield instance
    instance.journal.close()


def test_rewind_without_saved_cursor_is_applied_again(recording: Recording) -> None:
    for step in range(50):
        recording.row(step, {"a": 1.0})
    recording.save()
    recording.journal.rewind(recording.positions[9], 9)
    recording.consumer.save = lambda: None  # type: ignore[method-assign]
    recording.consumer.deliver_next()
    assert len(log(recording.directory)) == 10
    recording.kill()
    recording.row(10, {"b": 1.0})
    recording.check()


def test_log_rewound_to_start_is_empty_array(recording: Recording) -> None:
    recording.journal.append(events.Tags, {"a": "b"})
    recording.positions.append(recording.journal.end)
    for step in range(3):
        recording.row(step, {"a": 1.0})
    recording.rewind(0)
    assert log(recording.directory) == []
    recording.row(5, {"a": 5.0})
    assert [row["iteration"] for row in log(recording.directory)] == [5]


@pytest.mark.parametrize("size", [10, 1 << 20, 3 << 20])
def test_rewind_removes_rows_of_any_length_whole(recording: Recording, size: int) -> None:
    for step in range(4):
        recording.row(step, {"k" * size: 1.0})
    recording.rewind(1)
    assert [row["iteration"] for row in log(recording.directory)] == [0, 1]
    recording.rewind(0)
    assert [row["iteration"] for row in log(recording.directory)] == [0]


def test_row_with_many_values_stays_one_row(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        for sinks in (None, ["json"]):
            run.log_metrics({f"key {index}": index for index in range(2500)}, 1, sinks=sinks)
    assert [len(row) for row in log(tmp_path)] == [2501, 2501]


def test_row_append_cost_is_independent_of_log_length(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    recording.row(0, {"a": 1.0})
    calls: list[str] = []
    for name in ("read", "pread", "write", "pwrite", "ftruncate", "open", "fsync"):
        original = getattr(os, name)

        def count_call(*args: Any, name: str = name, original: Any = original) -> Any:
            calls.append(f"{name} of {len(args[1])}" if name == "pwrite" else name)
            return original(*args)

        monkeypatch.setattr(os, name, count_call)
    costs = []
    for _ in range(2000):
        calls.clear()
        recording.row(1, {"a": 1.0})
        costs.append(tuple(calls))
    row = b',\n{"a":1.0,"epoch":0.1,"iteration":1,"elapsed_time":1.0}\n]\n'
    assert set(costs) == {("write", f"pwrite of {len(row)}")}


def test_log_existing_foreign_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(json.dumps([{"epoch": step} for step in range(1000)]))
    with Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
        assert log(tmp_path) == [{"a": 1.0, "iteration": 1}]


def test_log_in_subdirectory_is_written(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1, log="val/log.json")
    assert log(tmp_path, "val/log.json") == [{"a": 1.0, "iteration": 1}]


def test_log_named_like_run_file_is_rejected(recording: Recording) -> None:
    consumer = recording.consumer
    for name in ("run.json", "journal.jsonl", "delivery/json.json"):
        recording.journal.append(Metrics, 1, {"a": 1.0}, None, None, name)
    recording.journal.append(Metrics, 2, {"a": 1.0})
    before = (recording.directory / JOURNAL).read_bytes()
    while consumer.deliver_next():
        pass
    assert (recording.directory / JOURNAL).read_bytes() == before
    assert not (recording.directory / "run.json").exists()
    assert len(consumer.cursor.rejected) == 3
    assert log(recording.directory) == [{"a": 1.0, "iteration": 2}]


TRAINER = """
import sys, pte_tracking
with pte_tracking.Run(sys.argv[1], resume=True) as run:
    first = len(run.rows())
    for step in range(first, first + 100_000):
        run.log_metrics({"a": step / 7, "b": float("nan")}, step, epoch=step // 10)
        if step == first + 5:
            print("running", flush=True)
"""


def test_sigkill_between_rows_leaves_valid_and_complete_log(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for _ in range(3):
        trainer = subprocess.Popen([sys.executable, "-c", TRAINER, directory], stdout=subprocess.PIPE)
        assert trainer.stdout
        with trainer.stdout:
            assert trainer.stdout.readline() == b"running\n"
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        rows = log(directory)
        assert [row["iteration"] for row in rows] == list(range(len(rows)))
        recorded = [event.step for event, _ in read_effective(directory / JOURNAL) if isinstance(event, Metrics)]
        assert recorded == list(range(len(recorded)))
        assert len(rows) <= len(recorded) <= len(rows) + 1
    with Run(directory, resume=True) as run:
        run.log_metrics({"a": 1.0}, len(recorded))
    rows = log(directory)
    assert [row["iteration"] for row in rows] == list(range(len(recorded) + 1))


def test_log_whose_replacement_failed_closes(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "log")
    log.start_replacement(0)
    (tmp_path / ".log.tmp").unlink()
    with pytest.raises(FileNotFoundError):
        log.finish_replacement()
    log.close()
