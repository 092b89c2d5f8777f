"""Tracker for Accelerate, tested with its Accelerator."""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pte_tracking as pte
from pte_tracking.sinks import Image, Table, Text

pytest.importorskip("accelerate")

from accelerate import Accelerator

from pte_tracking.integrations.accelerate import Tracker
from tests.integrations import accelerate_training
from tests.integrations.histories import (
    history,
    points,
    repeated_points,
    run_script,
    statuses,
    tensorboard_steps,
)

SCRIPT = Path(__file__).parent / "accelerate_training.py"


def start(tracker: Tracker, config: dict[str, Any] | None = None) -> Accelerator:
    accelerator = Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("digits", config)
    return accelerator


def log_steps(tracker: Tracker, *steps: int) -> None:
    accelerator = start(tracker)
    for step in steps:
        accelerator.log({"loss": 1.0}, step=step)
    accelerator.end_training()


def test_tracker_logs_config_and_values_to_run(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "run", params={"seed": 0}, tags={"kind": "test"}, name="small")
    accelerator = start(tracker, {"lr": 0.1, "model": {"width": 4}})
    accelerator.log({"loss": np.float32(0.5), "val": {"loss": 0.25, "by": {"class": 1}}, "note": "first"}, step=3)
    run = accelerator.get_tracker("pte_tracking", unwrap=True)
    accelerator.end_training()
    assert [(row.step, row.values) for row in run.rows()] == [(3, {"loss": 0.5, "val/loss": 0.25, "val/by/class": 1})]
    assert [(event.key, event.text, event.step) for event in history(run.directory) if isinstance(event, Text)] == [
        ("note", "first", 3)
    ]
    params = [event.values for event in history(run.directory) if type(event).__name__ == "Params"]  # type: ignore[union-attr]
    assert params == [{"seed": 0}, {"lr": 0.1, "model/width": 4}]
    assert (run.name, statuses(run.directory)) == ("small", ["FINISHED"])


def test_tracker_without_steps_counts_calls(tmp_path: Path) -> None:
    for resume in (False, True):
        accelerator = start(Tracker(tmp_path, resume=resume))
        for _ in range(2):
            accelerator.log({"loss": 1.0})
        accelerator.end_training()
    assert points(tmp_path, "loss") == [0, 1, 2, 3]


def test_tracker_log_images_accepts_lists_and_batches(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    start(tracker)
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    tracker.log_images({"list": [picture, picture], "batch": np.stack([picture])}, step=2)
    tracker.finish()
    assert [(event.key, event.step) for event in history(tmp_path) if isinstance(event, Image)] == [
        ("list", 2),
        ("batch", 2),
    ]


def test_tracker_log_table_accepts_rows_and_data_frames(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    start(tracker)
    tracker.log_table("rows", columns=["a", "b"], data=[[1, "x"], [2, "y"]], step=2)
    tracker.log_table("frame", dataframe={"a": [1]}, step=2)
    tracker.log_table("empty", columns=["a"], data=[], step=2)
    with pytest.raises(TypeError, match="expected dataframe=, or both columns= and data="):
        tracker.log_table("nothing", columns=["a"])
    with pytest.raises(ValueError, match=r"expected rows of 2 cells, got the lengths \[1\]"):
        tracker.log_table("ragged", columns=["a", "b"], data=[[1]])
    tracker.finish()
    tables = {event.key: event.path for event in history(tmp_path) if isinstance(event, Table)}
    assert {key: json.loads((tmp_path / path).read_text())["data"] for key, path in tables.items()} == {
        "rows": [[1, "x"], [2, "y"]],
        "frame": [[1]],
        "empty": [],
    }


def test_tracker_fresh_start_archives_earlier_run(tmp_path: Path) -> None:
    log_steps(Tracker(tmp_path), 1, 2)
    first = pte.Run(tmp_path, resume=True).id
    log_steps(Tracker(tmp_path), 1)
    assert [path.name for path in (tmp_path / "previous").iterdir()] == [first]
    assert points(tmp_path, "loss") == [1]


def test_tracker_resume_supersedes_values_from_first_step_on(tmp_path: Path) -> None:
    log_steps(Tracker(tmp_path), 1, 2, 3, 4)
    first = pte.Run(tmp_path, resume=True).id
    tracker = Tracker(tmp_path, resume=True)
    log_steps(tracker, 3)
    assert tracker.tracker.id == first
    assert points(tmp_path, "loss") == [1, 2, 3]


def test_tracker_load_state_resumes_at_saved_step(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    accelerator = start(tracker)
    accelerator.register_for_checkpointing(tracker)
    accelerator.log({"loss": 1.0}, step=1)
    accelerator.save_state(str(tmp_path / "state"))
    accelerator.log({"loss": 1.0}, step=2)
    accelerator.log({"loss": 1.0}, step=3)
    accelerator.end_training()
    again = Tracker(tmp_path)
    accelerator = start(again, {"lr": 0.1})
    accelerator.register_for_checkpointing(again)
    accelerator.load_state(str(tmp_path / "state"))
    accelerator.log({"loss": 1.0}, step=3)
    accelerator.end_training()
    assert again.tracker.id == tracker.tracker.id
    assert points(tmp_path, "loss") == [1, 3]


def test_tracker_finish_while_handling_exception_fails_run(tmp_path: Path) -> None:
    accelerator = start(Tracker(tmp_path))
    with pytest.raises(ValueError, match="no memory"):  # noqa: PT012
        try:
            accelerator.log({"loss": 1.0}, step=1)
            raise ValueError("no memory")
        finally:
            accelerator.end_training()
    assert statuses(tmp_path) == ["FAILED"]


def test_tracker_finish_without_values_keeps_run_of_resume(tmp_path: Path) -> None:
    log_steps(Tracker(tmp_path), 1)
    accelerator = start(Tracker(tmp_path, resume=True), {"lr": 0.1})
    accelerator.end_training()
    assert points(tmp_path, "loss") == [1]
    assert not (tmp_path / "previous").exists()


def test_tracker_value_of_wrong_type_raises(tmp_path: Path) -> None:
    accelerator = start(Tracker(tmp_path))
    with pytest.raises(TypeError, match="loss"):
        accelerator.log({"loss": object()}, step=1)
    accelerator.end_training()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="requires tensorboard")
def test_killed_training_load_state_gives_one_point_per_step_in_every_sink(tmp_path: Path) -> None:
    run_script(SCRIPT, "run", "7", folder=tmp_path, status=-signal.SIGKILL)
    directory = tmp_path / "run"
    first = pte.Run(directory, resume=True).id
    accelerate_training.main(str(directory), 0)
    assert pte.Run(directory, resume=True).id == first
    assert statuses(directory) == ["FINISHED"]
    assert points(directory, "loss") == list(range(1, 11))
    assert repeated_points(directory) == []
    assert [row["iteration"] for row in json.loads((directory / "log").read_text())] == list(range(1, 11))
    assert tensorboard_steps(directory, "loss") == list(range(1, 11))
