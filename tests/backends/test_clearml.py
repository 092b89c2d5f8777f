"""ClearML sessions in offline mode: several runs at once, resumed and damaged sessions, and the upload."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pte_backends.clearml import ClearMLSink
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun
from tests.backends.clearml_server import NEW_TASK, ClearMLServer
from tests.backends.clearml_sessions import find_session, read_run_points, read_task
from tests.servers import serving

# Raised when the client library reads its configuration with pyparsing 3.3.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")


def expect_points(steps: range, factor: float = 1.0) -> dict[str, list[tuple[int, float]]]:
    return {"train/loss": [(step, factor * step) for step in steps]}


# The client library may create a pool of threads twice, and drops one of them after its work.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_runs_at_once_are_two_complete_sessions(tmp_path: Path) -> None:
    steps = range(1, 301)
    recorded = {factor: RecordedRun(tmp_path / f"run{factor}", ClearMLSink("p")) for factor in (1.0, 3.0)}
    barrier = threading.Barrier(len(recorded), timeout=60)

    def deliver(run: RecordedRun, factor: float) -> None:
        for step in steps:
            run.log(step, {"train/loss": factor * step})
            if step % 100 == 0:
                barrier.wait()
                run.deliver()
        run.end()

    threads = [threading.Thread(target=deliver, args=(run, factor)) for factor, run in recorded.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for factor, run in recorded.items():
        assert read_run_points(run.directory) == expect_points(steps, factor)
        assert read_task(run.directory).id == f"offline-{run.manifest.id}"


def test_resumed_run_continues_session_without_status(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", ClearMLSink("p", "name"))
    recorded.journal.append(events.Params, {"lr": 0.1})
    recorded.log(1, {"train/loss": 1.0})
    recorded.end("KILLED")
    task, archive = read_task(recorded.directory), find_session(recorded.directory).with_suffix(".zip")
    assert (task.name, task.project_name, task.tags, archive.is_file()) == ("name", "p", ["KILLED"], True)
    recorded.journal.append(events.RunStarted, recorded.manifest.id, recorded.manifest.name, 1, "host", True)
    recorded.log(2, {"train/loss": 2.0})
    recorded.deliver()
    task = read_task(recorded.directory)
    assert (task.tags, task.hyperparams["General"]["lr"].value, archive.is_file()) == ([], "0.1", False)
    recorded.end("FAILED")
    assert (read_task(recorded.directory).tags, archive.is_file()) == (["FAILED"], True)
    assert read_run_points(recorded.directory) == expect_points(range(1, 3))


@pytest.mark.parametrize("name", ["metrics.jsonl", "task.json"])
def test_damaged_session_is_built_again(tmp_path: Path, name: str) -> None:
    recorded = RecordedRun(tmp_path / "run", ClearMLSink("p"))
    recorded.journal.append(events.Tags, {"team": "vision"})
    for step in range(1, 5):
        recorded.log(step, {"train/loss": float(step)})
    recorded.deliver()
    path = find_session(recorded.directory) / name
    path.write_bytes(path.read_bytes()[:20])
    recorded.crash()
    recorded.log(5, {"train/loss": 5.0})
    recorded.end()
    assert read_run_points(recorded.directory) == expect_points(range(1, 6))
    assert read_task(recorded.directory).hyperparams["properties"]["team"].value == "vision"


def test_values_of_full_disk_are_delivered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clearml.backend_interface.metrics import Metrics

    recorded = RecordedRun(tmp_path / "run", ClearMLSink("p"))
    recorded.log(1, {"train/loss": 1.0})
    recorded.deliver()
    recorded.log(2, {"train/loss": 2.0})
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "_do_write_events", lambda *args: None)  # The client library logs errors and goes on.
        with pytest.raises(OSError, match="0 of 1 reports were stored"):
            recorded.deliver()
    recorded.crash()
    recorded.end()
    assert read_run_points(recorded.directory) == expect_points(range(1, 3))


def test_batch_with_missing_file_stores_other_events_once(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", ClearMLSink("p"))
    recorded.log(1, {"train/loss": 1.0})
    recorded.journal.append(events.Image, "digit", 1, "missing.png")
    recorded.log(2, {"train/loss": 2.0})
    recorded.end()
    assert read_run_points(recorded.directory) == expect_points(range(1, 3))
    assert ["missing.png" in reason for reason in recorded.rejected_events.values()] == [True]


def test_non_finite_values_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded = RecordedRun(tmp_path / "run", ClearMLSink("p"))
    for step in (1, 2):
        recorded.log(step, {"train/loss": math.nan})
    with caplog.at_level(logging.WARNING, logger="pte_tracking"):
        recorded.deliver()
        recorded.crash()
        recorded.log(3, {"train/loss": math.inf})
        recorded.end()
    messages = [message for message in caplog.messages if "NaN" in message]
    assert len(messages) == 1
    assert "train/loss at step 1" in messages[0]


@pytest.mark.slow
def test_session_is_imported_by_client_library(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", ClearMLSink("digits", "name"))
    picture = recorded.directory / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    recorded.journal.append(events.Params, {"lr": 0.1})
    recorded.journal.append(events.Artifact, "picture.png", "")
    recorded.journal.append(events.Image, "digit", 1, "picture.png")
    for step in range(1, 150):
        recorded.log(step, {"train/loss": float(step)})
    recorded.end("KILLED")
    archive = find_session(recorded.directory).with_suffix(".zip")
    with serving(ClearMLServer()) as server:
        # The sink has set the variables of the offline mode in this process.
        inherited = {name: text for name, text in os.environ.items() if not name.endswith("_OFFLINE_MODE")}
        env = {**inherited, **server.environment, "CLEARML_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "clearml.cli.task", "--import-offline-session", str(archive)]
        subprocess.run(command, env=env, check=True, timeout=100)
    calls = dict(server.calls)
    assert calls["tasks.create"]["name"] == "name"
    assert server.task["tags"] == ["KILLED"]
    assert server.task["hyperparams"]["General"]["lr"]["value"] == "0.1"
    assert [artifact["key"] for artifact in server.task["execution"]["artifacts"]] == ["picture.png"]
    reports = [report for name, body in server.calls if name == "events.add_batch" for report in body]
    assert {report["task"] for report in reports} == {NEW_TASK}
    points = [(report["iter"], report["value"]) for report in reports if report["type"] == "training_stats_scalar"]
    assert points == expect_points(range(1, 150))["train/loss"]
    assert sum("PNG" in content for content in server.files) == 2


def test_sink_invalid_project_raises_type_error() -> None:
    with pytest.raises(TypeError, match="project: expected a string"):
        ClearMLSink(project=3)  # type: ignore[arg-type]
