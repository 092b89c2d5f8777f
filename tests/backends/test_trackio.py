"""Trackio databases, read back with Trackio's reader."""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import math
import re
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage
from trackio.utils import ARTIFACTS_DIR, MEDIA_DIR, TRACKIO_DIR

from pte_backends.trackio import TrackioSink, _artifacts
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import JOURNAL
from pte_tracking.testing import RecordedRun
from pte_tracking.testing._samples import make_sample_events
from tests.backends.killed_training import train, train_and_kill
from tests.backends.simultaneous import deliver_at_once, expected_points
from tests.backends.trackio_store import new_sink, read_config, read_points, read_rows
from tests.probe.fixtures import wait_until


def count_runs(sink: TrackioSink) -> int:
    return len(SQLiteStorage.get_run_records(sink.project))


def interrupt(*arguments: object, **options: object) -> None:
    raise OSError("interrupted")


@pytest.fixture
def sink() -> TrackioSink:
    return new_sink()


def test_rows_have_times_of_events_and_odd_numbers(sink: TrackioSink, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    run.log(3, {"loss": math.inf, "count": 2**53})
    run.end()
    (logged,) = (event for event, _ in read_effective(run.directory / JOURNAL) if isinstance(event, events.Metrics))
    first, row = read_rows(sink, run.directory)
    assert set(first) == {"timestamp", "step"}
    time = datetime.datetime.fromisoformat(row.pop("timestamp")).timestamp()
    assert time == pytest.approx(logged.time, abs=1e-5)
    assert row == {"step": 3, "loss": math.inf, "count": 2**53}


def test_run_is_listed_before_its_first_metric(sink: TrackioSink, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    run.journal.append(events.Params, {"lr": 0.1, "_hidden": 1})
    run.deliver()
    config = read_config(sink, run.directory)
    assert (config["lr"], config["params/_hidden"], config["run/status"]) == (0.1, 1, "RUNNING")


def test_run_that_continues_without_its_journal_adds_all_rows(sink: TrackioSink, tmp_path: Path) -> None:
    first, second = (RecordedRun(tmp_path / name, sink) for name in ("first", "second"))
    second.manifest = first.manifest
    for step, run in enumerate((first, second), start=1):
        run.log(step, {"loss": step / 2})
        run.end()
    assert read_points(sink, first.directory) == {"loss": [(1, 0.5), (2, 1.0)]}


def test_rewind_restores_parameters_and_rows(sink: TrackioSink, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    run.journal.append(events.Params, {"lr": 0.1})
    mark = run.log(1, {"loss": 0.5})
    run.journal.append(events.Params, {"lr": 0.2})
    run.journal.append(events.Text, "note", 2, "superseded")
    run.log(2, {"loss": 9.0})
    run.deliver()
    run.journal.rewind(mark, 1)
    run.log(2, {"loss": 0.25})
    run.end()
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5), (2, 0.25)]}
    assert read_config(sink, run.directory)["lr"] == 0.1
    assert not any("note" in row for row in read_rows(sink, run.directory))


def test_rewind_interrupted_after_deletion_is_completed(
    sink: TrackioSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    mark = run.log(1, {"loss": 0.5})
    run.log(2, {"loss": 9.0})
    run.deliver()
    run.journal.rewind(mark, 1)
    run.log(2, {"loss": 0.25})
    with monkeypatch.context() as interruption:
        interruption.setattr(SQLiteStorage, "bulk_log", interrupt)
        with pytest.raises(OSError, match="interrupted"):
            run.deliver()
    assert count_runs(sink) == 0
    run.crash()
    run.end()
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5), (2, 0.25)]}


def test_files_become_media_and_artifacts(sink: TrackioSink, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    for name in ("picture.png", "table.csv", "snapshot"):
        (run.directory / name).write_text(name)
    run.journal.append(events.Image, "image", 1, "picture.png")
    run.journal.append(events.Image, "missing", 1, "missing.png")
    run.journal.append(events.Artifact, "table.csv", "a b")
    run.journal.append(events.Checkpoint, "snapshot", 4, "ab" * 32, 8, 1, {"loss": math.nan})
    run.deliver()
    run.crash()
    run.end()
    assert [*run.rejected_events.values()] == ["File missing.png does not exist in the run directory."]
    (image,) = (row["image"] for row in read_rows(sink, run.directory) if "image" in row)
    assert (MEDIA_DIR / image["file_path"]).read_text() == "picture.png"
    table = SQLiteStorage.get_artifact_manifest(sink.project, "a_b_table.csv", "latest")
    (entry,) = table["manifest"]
    blobs = [path.read_text() for path in ARTIFACTS_DIR.rglob(entry["digest"])]
    assert (entry["path"], blobs) == ("table.csv", ["table.csv"])
    snapshot = SQLiteStorage.get_artifact_manifest(sink.project, f"checkpoint-{run.manifest.id}", "step-4")
    assert snapshot["manifest"][0]["ref"] == (run.directory / "snapshot").as_uri()
    assert snapshot["metadata"]["step"] == 4


def test_snapshot_pruned_after_its_path_was_checked_is_skipped(
    sink: TrackioSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def check_and_prune(directory: Path, path: Path) -> tuple[list[Path], int]:
        path.unlink()
        return [path], 0

    run = RecordedRun(tmp_path / "run", sink)
    (run.directory / "snapshot").write_bytes(b"state")
    run.journal.append(events.Checkpoint, "snapshot", 1, "0" * 64, 5, 1, {})
    run.log(1, {"loss": 0.5})
    monkeypatch.setattr(_artifacts, "list_owned_files", check_and_prune)
    run.deliver()
    assert run.rejected_events == {}
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5)]}
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_artifact_name_of_another_type_is_rejected(sink: TrackioSink, tmp_path: Path) -> None:
    SQLiteStorage.init_db(sink.project)
    SQLiteStorage.create_or_get_artifact(sink.project, "table.csv", "dataset", None)
    run = RecordedRun(tmp_path / "run", sink)
    (run.directory / "table.csv").touch()
    run.journal.append(events.Artifact, "table.csv")
    run.log(1, {"loss": 0.5})
    run.end()
    (reason,) = run.rejected_events.values()
    assert "already exists with type 'dataset'" in reason
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5)]}


def test_runs_of_two_projects_are_delivered_at_once(tmp_path: Path) -> None:
    first, second = new_sink(), new_sink()
    sinks = [first, first, second]
    runs = [RecordedRun(tmp_path / f"run{number}", sink) for number, sink in enumerate(sinks)]
    deliver_at_once(runs)
    for number, (run, sink) in enumerate(zip(runs, sinks, strict=True)):
        assert read_points(sink, run.directory) == expected_points(number)
    assert [count_runs(sink) for sink in (first, second)] == [2, 1]


def test_delivery_opens_no_network_connection(
    sink: TrackioSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_SPACE_ID", "user/space")
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:1")
    addresses: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda connection, address: addresses.append(address))
    run = RecordedRun(tmp_path / "run", sink)
    for kind, fields in make_sample_events(run.directory):
        run.journal.append(kind, *fields)
    run.log(1, {"loss": 0.5})
    run.end()
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5)]}
    assert addresses == []


def test_locked_database_is_written_when_it_is_released(sink: TrackioSink, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    with open(Path(TRACKIO_DIR, f"{sink.project}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        release = threading.Timer(0.3, fcntl.flock, (lock, fcntl.LOCK_UN))
        release.start()
        run.log(1, {"loss": 0.5})
        run.end()
        release.join()
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5)]}


def test_unavailable_database_is_written_after_a_retry(sink: TrackioSink, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    obstacle = SQLiteStorage.get_project_db_path(sink.project)
    obstacle.mkdir()
    run.log(1, {"loss": 0.5})
    with pytest.raises(sqlite3.OperationalError):
        run.deliver()
    run.crash()
    obstacle.rmdir()
    run.end()
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5)]}


def test_run_deleted_in_trackio_is_not_created_again(
    sink: TrackioSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    run.log(1, {"loss": 0.5})
    run.deliver()
    (stored,) = Api().runs(sink.project)
    stored.delete()
    run.crash()
    run.log(2, {"loss": 0.25})
    run.deliver()
    assert "does not contain the run any more" in caplog.text
    assert count_runs(sink) == 0


def test_lost_database_receives_all_events_again(sink: TrackioSink, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", sink)
    run.log(1, {"loss": 0.5})
    run.deliver()
    for path in Path(TRACKIO_DIR).glob(f"{sink.project}.db*"):
        path.unlink()
    run.crash()
    run.log(2, {"loss": 0.25})
    run.deliver()
    run.end()
    assert read_points(sink, run.directory) == {"loss": [(1, 0.5), (2, 0.25)]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_directory": "/elsewhere"}, "Trackio uses the directory .* in this process, and the run uses /elsewhere"),
        ({"project": "registry-x"}, "names beginning with 'registry-' are reserved"),
    ],
    ids=["directory", "project"],
)
def test_unusable_destination_stops_delivery(
    sink: TrackioSink, tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, str], message: str
) -> None:
    run = RecordedRun(tmp_path / "run", dataclasses.replace(sink, **changes))
    run.deliver()
    assert re.search(f"delivery stopped: .*{message}", caplog.text)
    assert count_runs(sink) == 0


def test_sink_invalid_project_raises() -> None:
    with pytest.raises(TypeError, match="project: expected a string, got 3"):
        TrackioSink(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="project: expected a non-empty string"):
        TrackioSink("")


def test_resolve_uses_directory_of_client(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrackioSink().resolve()._directory == str(TRACKIO_DIR)
    monkeypatch.delenv("TRACKIO_DIR")
    monkeypatch.setenv("HF_HOME", "/cache")
    assert TrackioSink().resolve()._directory == "/cache/trackio"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert TrackioSink().resolve()._directory == "/xdg/huggingface/trackio"


def test_command_in_shell_with_another_directory_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = TrackioSink("digits").resolve()
    assert sink.locate(Path(), {}).command == "trackio show --project digits"
    monkeypatch.setenv("TRACKIO_DIR", "/other")
    assert sink.locate(Path(), {}).command == f"TRACKIO_DIR={TRACKIO_DIR} trackio show --project digits"


@pytest.mark.slow
def test_killed_training_is_shown_as_killed_and_resumes_same_run(tmp_path: Path) -> None:
    sink = TrackioSink()  # The project "default" is used by this test only.
    directory = tmp_path / "result"
    train_and_kill(tmp_path, "trackio", 1, 5)
    wait_until(lambda: count_runs(sink) == 1 and read_config(sink, directory)["run/status"] == "KILLED")
    assert read_points(sink, directory)["loss"] == [(step, step / 8) for step in range(1, 6)]
    train(tmp_path, "trackio", 6, 10)
    assert read_points(sink, directory)["loss"] == [(step, step / 8) for step in range(1, 11)]
    assert read_config(sink, directory)["run/status"] == "FINISHED"
    assert count_runs(sink) == 1
