"""Events of another person's run that refer to files outside of the run directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_backends.trackio import TrackioSink
from pte_backends.wandb import WandbSink
from pte_tracking._delivery.cursor import Cursor, CursorStore
from pte_tracking._delivery.sync import sync
from pte_tracking._store import event_encoding, events
from pte_tracking.sinks import Sink
from tests.pictures import PNG

SECRET = b"private-4711"


def files_with(content: bytes, directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        if path.is_file() and content in path.read_bytes():
            yield path


@pytest.fixture(params=["mlflow", "trackio", "wandb"])
def sink(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sink:
    if request.param == "trackio":
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
        return TrackioSink("p")
    if request.param == "wandb":
        return WandbSink("p")
    return MLflowSink(f"sqlite:///{tmp_path / 'store' / 'm.db'}", artifact_root=str(tmp_path / "store" / "files"))


@pytest.mark.slow
def test_links_out_of_the_run_are_not_delivered(sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    home, store = tmp_path / "home", tmp_path / "store"
    for folder in (home, store, tmp_path / "data" / "more"):
        folder.mkdir(parents=True)
    (home / "key").write_bytes(SECRET)
    (tmp_path / "plain").write_bytes(b"plain-4711")
    (tmp_path / "data" / "more" / "kept").write_bytes(b"kept-4711")
    with pte.Run(tmp_path / "run", sinks=[sink]) as run:
        run.log_artifact(tmp_path / "plain")
        run.log_artifact(tmp_path / "plain", "linked")
        run.log_artifact(tmp_path / "plain", "folder/linked")
        run.log_artifact(tmp_path / "data")
        run.log_image("image", PNG, 1)
        run.log_metrics({"loss": 1.0}, 1)
    artifacts = tmp_path / "run" / "artifacts"
    (artifacts / "linked" / "plain").unlink()
    (artifacts / "linked" / "plain").symlink_to(home / "key")
    (home / "linked").mkdir()
    (home / "linked" / "plain").write_bytes(SECRET)
    os.rename(artifacts / "folder", artifacts / "moved")
    (artifacts / "folder").symlink_to(home)
    (artifacts / "data" / "key").symlink_to("../../../home/key")
    (artifacts / "data" / "loop").symlink_to("..")
    os.mkfifo(artifacts / "data" / "pipe")
    (image,) = (tmp_path / "run" / "images").rglob("*.png")
    image.unlink()
    image.symlink_to(home / "key")
    command = [sys.executable, "-m", "pte_tracking._cli", "sync", str(tmp_path / "run"), "--timeout", "20"]
    subprocess.run(command, check=True, capture_output=True)
    delivered = store if isinstance(sink, MLflowSink | TrackioSink) else tmp_path / "run" / "wandb"
    assert list(files_with(SECRET, delivered)) == []
    assert list(files_with(b"plain-4711", delivered))
    assert list(files_with(b"kept-4711", delivered))


def test_state_that_names_another_file_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    with pte.Run(tmp_path / "run", sinks=["json", "tensorboard"]) as run:
        run.log_metrics({"loss": 1.0}, 1)
    (tmp_path / "notes").write_text("kept" * 100)
    names = ["../notes", str(tmp_path / "notes"), "events.out.tfevents.0000000001./../../notes"]
    for name in names:
        CursorStore(tmp_path / "run", "tensorboard").save(Cursor(state={"file": name, "size": 1}))
        CursorStore(tmp_path / "run", "json").save(Cursor(state={"sizes": {name: 0}}))
        sync(tmp_path / "run", timeout=0.2)
        with pte.Run(tmp_path / "run", resume=True) as run:
            run.log_metrics({"loss": 1.0}, 2)
        assert (tmp_path / "notes").read_text() == "kept" * 100


@pytest.mark.parametrize("path", ["../up", "/etc", "a/../../b"])
def test_artifact_event_with_path_outside_is_not_decoded(path: str) -> None:
    line = event_encoding.encode(events.Artifact(1, 0.0, "artifacts/a", "sub"))
    with pytest.raises(ValueError, match="artifact_path"):
        event_encoding.decode(line.replace(b'"sub"', f'"{path}"'.encode()))
