"""Resume a run from a mirror on a machine without the run directory."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._delivery.sync import sync
from pte_tracking._store.events import Rewound
from pte_tracking._store.journal_reader import find_events
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.samples import SampleWriter, read_samples
from tests.deliveries import end_deliveries
from tests.object_store import BUCKET, ObjectStore
from tests.snapshots import mirrored
from tests.snapshots import small_training as small
from tests.snapshots.resume_training import EVERY, damage, make_manager, run


@pytest.fixture(autouse=True)
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment in which no real S3 server is used."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


@pytest.fixture
def s3_mirror(bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty mirror in an object store."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment["MLFLOW_S3_ENDPOINT_URL"])
    return f"s3://{BUCKET}/{tmp_path.name}"


def snapshot(mirror: Any, **options: Any) -> Any:
    return extensions.snapshot(trigger=EVERY, mirror=str(mirror), **options)


def train(out: Path, mirror: Any, iterations: int, losses: Any = None, **options: Any) -> str:
    """Start a run with a snapshot in each iteration, and return its ID."""
    manager = make_manager(out, snapshot(mirror, **options), close_timeout=60)
    run(manager, iterations, losses)
    return manager.run.id


def resume(out: Path, mirror: Any, source: str = "latest", iterations: int = 0, **options: Any) -> tuple[Any, float]:
    """Resume, and train. Return the ID of the run, and a weight after the resume."""
    manager = make_manager(out, snapshot(mirror, **options), close_timeout=60)
    weight = manager.models["main"].get_parameter("weight")
    weight.data.fill_(-1)
    checkpoint = manager.resume(source)
    restored = weight[0, 0].item()
    assert manager.iteration == (0 if checkpoint is None else checkpoint.step)
    run(manager, iterations, dict.fromkeys(range(1, 20), 2.0))
    return manager.run.id, restored


def copies(mirror: Path, run_id: str) -> list[str]:
    """Return the names of the complete snapshots of a run at a mirror."""
    return sorted(json.loads(path.read_bytes())["path"] for path in mirror.glob(f"{run_id}/snapshots/*/index.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_environment")
def test_training_killed_with_its_machine_equals_uninterrupted_one(mlflow_store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, mirror = tmp_path / "result", str(tmp_path / "mirror")
    command = [sys.executable, "-m", "tests.snapshots.mirrored", str(out), mirror, mlflow_store, "13"]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert sync(out, timeout=60) == []
    run_id = pte.Run(out, resume=True).id
    out.rename(tmp_path / "lost")  # its delivery process may not have ended yet

    weights, resumed = mirrored.train(out, mirror, mlflow_store)
    assert (resumed.path, resumed.step, pte.Run(out, resume=True).id) == ("snapshot_iter_10", 10, run_id)
    assert sync(out, timeout=60) == []
    uninterrupted, _ = small.train(tmp_path / "uninterrupted", resume_from=None)
    rows = small.read_rows(tmp_path / "uninterrupted")
    assert weights == uninterrupted
    assert small.read_rows(out) == rows
    scalars = EventAccumulator(str(out))
    scalars.Reload()
    assert [point.step for point in scalars.Scalars("train/loss")] == [row["iteration"] for row in rows]
    client = MlflowClient(mlflow_store)
    (tracked,) = client.search_runs([client.get_experiment_by_name("mirrored").experiment_id])
    history = client.get_metric_history(tracked.info.run_id, "train/loss")
    assert {point.step: point.value for point in history} == {row["iteration"]: row["train/loss"] for row in rows}
    assert (len(history), tracked.info.status) == (len(rows), "FINISHED")


@pytest.mark.slow
def test_run_on_empty_machine_continues_from_and_to_object_store(
    s3_mirror: str, bucket: ObjectStore, tmp_path: Path
) -> None:
    prefix = s3_mirror.rpartition("/")[2]
    run_id = train(tmp_path / "first", s3_mirror, 3, n_retains=2)
    (tmp_path / "first").rename(tmp_path / "lost")
    assert resume(tmp_path / "second", s3_mirror, iterations=2, n_retains=2) == (run_id, 3)
    names = [name.removeprefix(f"{prefix}/") for name in bucket.objects(prefix)]
    assert [name for name in names if "snapshot_iter" in name] == [
        name.replace("index.json", f"snapshot_iter_{step}")
        for step, name in zip((4, 5), (name for name in names if "index" in name), strict=True)
    ]
    assert pte.load(tmp_path / "nothing", s3_mirror).step == 5
    assert [row.step for row in pte.Run(tmp_path / "second").rows()] == [1, 2, 3, 4, 5]


def test_pruned_snapshots_are_deleted_at_mirror_and_run_goes_on_there(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    losses = {1: 5.0, 2: 1.0, 3: 3.0, 4: 4.0}
    best: Any = {"n_retains": 1, "keep_best": ("loss", "min", 1)}
    run_id = train(tmp_path / "first", mirror, 4, losses, **best)
    assert copies(mirror, run_id) == ["snapshot_iter_2", "snapshot_iter_4"]
    assert resume(tmp_path / "best", mirror, "best", **best) == (run_id, 2)
    assert resume(tmp_path / "second", mirror, iterations=2, **best) == (run_id, 4)
    # The best snapshot exists at the mirror only, and stays there.
    assert copies(mirror, run_id) == ["snapshot_iter_2", "snapshot_iter_6"]
    assert [row.step for row in pte.Run(tmp_path / "second").rows()] == [1, 2, 3, 4, 5, 6]


def test_damaged_snapshot_at_mirror_is_skipped_and_removed_by_the_rewind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = tmp_path / "mirror"
    run_id = train(tmp_path / "first", mirror, 3)
    (newest,) = mirror.glob("*/snapshots/*/snapshot_iter_3")
    damage(newest)
    (older,) = mirror.glob("*/snapshots/*/snapshot_iter_2")
    (older.parent / "index.json").unlink()  # as after an upload that was interrupted
    assert resume(tmp_path / "second", mirror, iterations=1) == (run_id, 1)
    assert "snapshots/000000000003" in caplog.text
    assert "skipping unusable snapshot: damaged or replaced" in caplog.text
    assert copies(mirror, run_id) == ["snapshot_iter_1", "snapshot_iter_2"]
    assert not newest.exists()
    assert list((tmp_path / "second").glob(".fetched*")) == []


def test_new_run_in_used_mirror_becomes_the_newest(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    first = train(tmp_path / "first", mirror, 2)
    second = train(tmp_path / "second", mirror, 1)
    assert resume(tmp_path / "third", mirror) == (second, 1)
    assert copies(mirror, first) == ["snapshot_iter_1", "snapshot_iter_2"]
    # The run in the directory is continued, also if another one is newer.
    for path in (tmp_path / "first").glob("snapshot_*"):
        path.unlink()
    assert resume(tmp_path / "first", mirror) == (first, 2)


def test_media_and_artifacts_are_fetched_with_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "note.txt").write_text("a note")

    def make(out: str) -> pte.ExtensionsManager:
        saved = snapshot(tmp_path / "mirror")
        return make_manager(tmp_path / out, saved, sinks=["tensorboard"], close_timeout=60)

    first = make("first")
    with first, first.run_iteration():
        first.run.log_image("group/white", torch.ones(2, 2))
        first.run.log_artifact(tmp_path / "note.txt", "notes")
    (tmp_path / "first").rename(tmp_path / "lost")
    other = tmp_path / "second" / "images" / "other.txt"  # of the user, as with out_dir="."
    other.parent.mkdir(parents=True)
    other.touch()
    second = make("second")
    assert second.resume() is not None
    run(second, 1)
    assert sync(tmp_path / "second", timeout=60) == []
    assert other.exists()
    (picture,) = (tmp_path / "second" / "images").rglob("*.png")
    assert picture.stat().st_size
    (note,) = (tmp_path / "second" / "artifacts").rglob("note.txt")
    assert note.read_text() == "a note"
    assert "rejected" not in (tmp_path / "second" / "delivery" / "log.txt").read_text()


def test_samples_of_system_metrics_continue_on_empty_machine(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    first = make_manager(tmp_path / "first", snapshot(mirror), close_timeout=60)
    with first:
        run(first, 1)
        with contextlib.closing(SampleWriter(tmp_path / "first", "node1")) as samples:
            samples.append({"system/cpu": 1.0})
            samples.append({"system/cpu": 2.0})
        (tmp_path / "first" / "system-link.jsonl").symlink_to("/etc/hostname")
    assert sync(tmp_path / "first", timeout=60) == []
    (tmp_path / "first").rename(tmp_path / "lost")
    resume(tmp_path / "second", mirror, iterations=1)
    with contextlib.closing(SampleWriter(tmp_path / "second", "node2")) as samples:
        samples.append({"system/cpu": 3.0})
    delivered = [event for part in read_samples(tmp_path / "second", {}) for event in part.events]
    assert [(event.step, event.values["system/cpu"]) for event in delivered] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [path.name for path in mirror.glob("*/samples/*")] == ["system-node1.jsonl"]


def test_empty_mirror_starts_from_step_0(tmp_path: Path) -> None:
    run_id, weight = resume(tmp_path / "out", tmp_path / "mirror", iterations=1)
    assert weight == -1
    assert resume(tmp_path / "other", tmp_path / "mirror") == (run_id, 1)


def test_unreachable_mirror_stops_an_empty_machine_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "anyone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-value")
    manager = make_manager(tmp_path / "out", snapshot("s3://bucket/prefix"))
    with pytest.raises(ConnectionError, match=r"s3://bucket/prefix cannot be read.*another run.*start again") as raised:
        manager.resume()
    assert "hidden-value" not in str(raised.value)
    assert list((tmp_path / "out").iterdir()) == []
    train(tmp_path / "local", tmp_path / "mirror", 2)
    manager = make_manager(tmp_path / "local", snapshot("s3://bucket/prefix"), close_timeout=0)
    checkpoint = manager.resume()
    assert checkpoint is not None
    assert checkpoint.step == 2


def test_run_that_continued_elsewhere_is_not_overwritten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mirror = tmp_path / "mirror"
    run_id = train(tmp_path / "first", mirror, 2)
    resume(tmp_path / "second", mirror, iterations=2)
    end_deliveries()
    resume(tmp_path / "first", mirror, iterations=1)
    (pending,) = [item for item in sync(tmp_path / "first", timeout=10) if item.key == "mirror"]
    assert "another directory or machine recorded" in str(pending)
    assert copies(mirror, run_id)[-1] == "snapshot_iter_4"
    for path in (tmp_path / "first").glob("snapshot_*"):
        path.unlink()
    with pytest.raises(RuntimeError, match=r"step 4 belongs to a later part of this run.*Move this directory"):
        make_manager(tmp_path / "first", snapshot(mirror)).resume()
    assert list((tmp_path / "first").glob(".fetched*")) == []
    assert resume(tmp_path / "third", mirror) == (run_id, 4)


def test_rewind_of_events_from_another_machine_reaches_a_backend(tmp_path: Path) -> None:
    from tests.backends.trackio_store import new_sink, read_points

    sink = new_sink()
    every_second = {"trigger": (2, "iteration"), "at_end": False}

    def make(out: str) -> pte.ExtensionsManager:
        saved = extensions.snapshot(mirror=str(tmp_path / "mirror"), **every_second)  # type: ignore[arg-type]
        return make_manager(tmp_path / out, saved, sinks=[sink], close_timeout=60)

    run(make("first"), 3)
    second = make("second")
    second.resume()
    run(second, 2, dict.fromkeys(range(1, 9), 2.0))
    assert sync(tmp_path / "second", timeout=60) == []
    assert len(list(find_events(tmp_path / "second" / JOURNAL, Rewound))) == 1
    assert read_points(sink, tmp_path / "second")["loss"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
