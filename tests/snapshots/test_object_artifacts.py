"""Files of snapshot_object() as artifacts of the run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store.effective_files import list_artifacts


def train(out: Path, *, artifact: bool = True, filename: str = "weights/{.iteration}") -> None:
    model = nn.Linear(1, 1)
    saved = extensions.snapshot_object(model, filename, trigger=(1, "iteration"), artifact=artifact)
    manager = pte.ExtensionsManager(model, 1, [saved, extensions.snapshot()], iters_per_epoch=2, out_dir=out, sinks=[])
    manager.resume()
    with manager:
        for _ in manager.batches(range(2)):
            with manager.run_iteration():
                pass


def test_each_file_is_an_artifact_in_its_directory(tmp_path: Path) -> None:
    train(tmp_path)
    assert {event.path: event.artifact_path for event in list_artifacts(tmp_path)} == {
        "weights/1": "weights",
        "weights/2": "weights",
    }


def test_file_at_top_of_run_directory_is_an_artifact_at_top_level(tmp_path: Path) -> None:
    train(tmp_path, filename="weights_{.iteration}")
    assert {event.artifact_path for event in list_artifacts(tmp_path)} == {""}


def test_files_are_no_artifacts_by_default(tmp_path: Path) -> None:
    train(tmp_path, artifact=False)
    assert (tmp_path / "weights" / "2").is_file()
    assert list_artifacts(tmp_path) == []


def test_file_without_event_is_logged_when_training_starts_again(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    for artifact in (False, True):
        saved = extensions.snapshot_object(model, "weights_{.iteration}", trigger=(1, "iteration"), artifact=artifact)
        snapshot = extensions.snapshot(trigger=(1, "iteration"))
        manager = pte.ExtensionsManager(model, 2, [saved, snapshot], iters_per_epoch=1, out_dir=tmp_path, sinks=[])
        manager.resume()
        with manager.run_iteration():
            pass
        manager.close()
    assert {event.path for event in list_artifacts(tmp_path)} == {"weights_1", "weights_2"}
