"""Aim runs: rewinds, locks, deleted runs, and the status, read with Aim's own reader."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import aim
import pytest
from aim.sdk.repo import Repo

from pte_backends.aim import AimSink
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun
from tests.backends.aim_runs import CONTEXT, read_run
from tests.cli.invocation import invoke


@pytest.fixture
def run(aim_repository: str, tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", AimSink(aim_repository))


def read(run: RecordedRun) -> aim.Run:
    return read_run(run.manifest.sinks[0].options["repo"], run.directory)


def read_points(run: aim.Run) -> dict[str, dict[int, float]]:
    points = {}
    for metric in run.metrics():
        steps, (values, *_) = metric.data.items_list()
        points[metric.name] = dict(zip(steps, values, strict=True))
    return points


def summary(run: aim.Run, key: str) -> dict[str, Any]:
    values = run.meta_run_tree.collect(("traces", CONTEXT.idx, key))
    return {field: values[field] for field in ("last", "last_step", "min", "max")}


def test_run_has_name_start_time_params_tags_and_epochs(run: RecordedRun) -> None:
    run.journal.append(events.Params, {"lr": 0.1, "seed": 2**80, "optim/name": "adam"})
    run.journal.append(events.Tags, {"team": "vision"})
    run.log(1, {"loss": 1}, epoch=0.5)
    run.log(2, {"loss": 0.5}, epoch=1)
    run.deliver()
    run.journal.append(events.Tags, {"team": "speech"})
    run.end()
    stored = read(run)
    assert (stored.hash, stored.name) == (run.manifest.id, run.manifest.name)
    assert stored.creation_time == pytest.approx(run.manifest.start_time)
    assert stored["hparams"] == {"lr": 0.1, "seed": str(2**80), "optim/name": "adam"}
    assert stored.tags == ["team: speech"]
    steps, (values, epochs, _) = stored.get_metric("loss", CONTEXT).data.items_list()
    assert (steps, values, epochs) == ([1, 2], [1.0, 0.5], [0.5, 1.0])


def test_changed_experiment_renames_it_in_same_run(aim_repository: str, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", AimSink(aim_repository, experiment="before"))
    run.log(1, {"loss": 1.0})
    run.end()
    result = invoke(
        "sync", run.directory, "--to", "aim", "--option", f"repo={aim_repository}", "--option", "experiment=after"
    )
    assert result.exit_code == 0, result.output
    stored = read(run)
    assert (stored.experiment, stored["status"]) == ("after", "FINISHED")


def test_rewind_removes_values_and_corrects_summary(run: RecordedRun) -> None:
    (run.directory / "picture.png").write_bytes(b"")
    run.journal.append(events.Checkpoint, "s1", 1, "0" * 64, 5, 1, {})
    position = run.log(1, {"loss": 2.0})
    run.journal.append(events.Text, "note", 1, "kept")
    position = run.journal.end
    for step in (2, 3, 4):
        run.log(step, {"loss": -9.0 * step, "late": 1.0 * step})
    run.journal.append(events.Text, "note", 4, "superseded")
    run.journal.append(events.Checkpoint, "s4", 4, "0" * 64, 5, 1, {})
    run.deliver()
    run.journal.rewind(position, 1)
    run.log(2, {"loss": 1.0})
    run.end()
    stored = read(run)
    # A sequence without values cannot be shown, so one superseded value remains.
    assert read_points(stored) == {"loss": {1: 2.0, 2: 1.0}, "late": {2: 2.0}}
    assert summary(stored, "loss") == {"last": 1.0, "last_step": 2, "min": 1.0, "max": 2.0}
    assert stored.get_text_sequence("note", CONTEXT).data.items_list()[0] == [1]
    assert list(stored["checkpoints"]) == ["s1"]


def test_damaged_image_is_rejected_and_other_events_are_stored(run: RecordedRun) -> None:
    (run.directory / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    run.journal.append(events.Image, "picture", 1, "damaged.png")
    run.journal.append(events.Figure, "missing", 1, "missing.png")
    run.journal.append(events.Artifact, "missing.txt", "")
    run.log(1, {"loss": 1.0})
    run.end()
    assert [reason.split()[1] for reason in run.rejected_events.values()] == [
        "damaged.png",
        "missing.png",
        "missing.txt",
    ]
    assert read_points(read(run)) == {"loss": {1: 1.0}}


def test_histogram_with_unequal_bins_keeps_number_of_values(run: RecordedRun) -> None:
    run.journal.append(events.Histogram, "weights", 1, [0.0, 1.0, 4.0], [2.0, 6.0], 0.0, 4.0, 8.0, 8.0)
    run.end()
    distribution = read(run).get_distribution_sequence("weights", CONTEXT).values.last_value()
    assert (distribution.range, distribution.weights.tolist()) == ([0.0, 4.0], [4.0, 4.0])


def test_deleted_run_is_delivered_again(run: RecordedRun, aim_repository: str) -> None:
    run.log(1, {"loss": 1.0})
    run.end()
    assert aim.Repo(aim_repository).delete_run(run.manifest.id)
    time.sleep(0.6)  # Aim caches the list of runs for half a second.
    run.log(2, {"loss": 2.0})
    run.end()
    assert read_points(read(run)) == {"loss": {1: 1.0, 2: 2.0}}


def test_two_open_runs_share_repository(run: RecordedRun, aim_repository: str, tmp_path: Path) -> None:
    other = RecordedRun(tmp_path / "other", AimSink(aim_repository))
    for step in (1, 2):
        for number, each in enumerate((run, other)):
            each.log(step, {"loss": float(step + 10 * number)})
            each.deliver()
    run.end()
    other.end("FAILED")
    assert read_points(read(run)) == {"loss": {1: 1.0, 2: 2.0}}
    assert read_points(read(other)) == {"loss": {1: 11.0, 2: 12.0}}
    assert (read(run)["status"], read(other)["status"]) == ("FINISHED", "FAILED")


@pytest.mark.slow
def test_runs_that_create_repository_at_once_are_stored(tmp_path: Path) -> None:
    runs = [RecordedRun(tmp_path / f"run{number}", AimSink(str(tmp_path / "new"))) for number in range(3)]

    def deliver(run: RecordedRun) -> None:
        run.log(1, {"loss": 1.0})
        run.end()

    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(deliver, runs))
    assert [read_points(read(run)) for run in runs] == [{"loss": {1: 1.0}}] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the run that Aim did not open
def test_run_locked_by_other_process_is_retried(
    run: RecordedRun, aim_repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.log(1, {"loss": 1.0})
    run.deliver()
    run.crash()
    monkeypatch.setattr(Repo.request_run_lock, "__defaults__", (0.1,))  # seconds that Aim waits for a lock
    lock = Path(aim_repository, ".aim/locks", f"{run.manifest.id}.softlock")
    lock.write_text(f"{uuid.getnode()}-{os.getppid()}-{time.time()}")
    run.log(2, {"loss": 2.0})
    with pytest.raises(TimeoutError, match=r"has the Aim run \w+ open.* run: aim runs --repo \S+ close"):
        run.deliver()
    run.crash()
    lock.unlink()
    run.end()
    assert read_points(read(run)) == {"loss": {1: 1.0, 2: 2.0}}


def test_default_repository_is_nearest_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    assert AimSink().resolve().repo == str(tmp_path / "a/b")
    (tmp_path / ".aim").mkdir()
    sink = AimSink().resolve()
    assert sink.repo == str(tmp_path)
    location = sink.locate(tmp_path / "result", {"run_id": "abc"})
    assert location is not None
    assert (location.run_id, location.command) == ("abc", f"aim up --repo {tmp_path}")
    assert AimSink("aim://127.0.0.1:53800").resolve().repo == "aim://127.0.0.1:53800"
    assert AimSink("data").resolve().repo == str(tmp_path / "a/b/data")


def test_invalid_options_raise() -> None:
    with pytest.raises(TypeError, match="repo: expected a string, got 3"):
        AimSink(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="experiment: expected a non-empty string"):
        AimSink(experiment="")


TRAINING = """
import os, signal, sys
import pte_tracking as pte
from pte_backends.aim import AimSink

run = pte.Run("result", sinks=[AimSink(sys.argv[1])])
for step in range(1, 101):
    run.log_metrics({"loss": step / 7}, step)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_killed_training_is_stored_completely_with_status(aim_repository: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING, aim_repository]
    assert subprocess.run(command, cwd=tmp_path, timeout=60).returncode == -signal.SIGKILL
    result = invoke("sync", tmp_path / "result")  # waits for the delivery process
    assert result.exit_code == 0, result.output
    stored = read_run(aim_repository, tmp_path / "result")
    assert read_points(stored) == {"loss": {step: step / 7 for step in range(1, 101)}}
    assert (stored.active, stored["status"]) == (False, "KILLED")
