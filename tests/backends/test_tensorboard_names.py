"""Tags of event files when several kinds of events have one name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import pte_tracking as pte
from pte_backends.tensorboard import TensorBoardSink
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun


def make_png() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("L", (4, 4)).save(buffer, "png")
    return buffer.getvalue()


def read_tags(directory: Path) -> dict[str, tuple[str, list[int]]]:
    """Return the plugin and the steps of each tag. A tag with values of two plugins fails the test."""
    plugins: dict[str, set[str]] = {}
    steps: dict[str, list[int]] = {}
    for path in sorted(directory.glob("*tfevents*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                if plugin:
                    plugins.setdefault(value.tag, set()).add(plugin)
                steps.setdefault(value.tag, []).append(event.step)
    assert all(len(found) == 1 for found in plugins.values()), plugins
    return {tag: (*plugins[tag], steps[tag]) for tag in steps}


def test_one_name_of_every_kind_is_kept(tmp_path: Path) -> None:
    with pte.Run(tmp_path, sinks=["tensorboard"]) as run:
        for step in (1, 2):
            run.log_metrics({"x": step}, step)
            run.log_image("x", np.zeros((4, 4)), step)
            run.log_figure("x", make_png(), step)
            run.log_histogram("x", np.arange(4.0), step)
            run.log_text("x", "text", step)
    assert read_tags(tmp_path) == {
        "x": ("scalars", [1, 2]),
        "x/image": ("images", [1, 2]),
        "x/figure": ("images", [1, 2]),
        "x/histogram": ("histograms", [1, 2]),
        "x/text": ("text", [1, 2]),
    }


def test_own_tags_of_tensorboard_are_not_overwritten(tmp_path: Path) -> None:
    with pte.Run(tmp_path, sinks=["tensorboard"], params={"lr": 0.1}) as run:
        run.log_metrics({"_hparams_/session_start_info": 1.0, "train/a": 1.0, "val/a": 1.0}, 1, epoch=0.5)
        run.log_text("custom_scalars__config__", "text", 1)
        run.log_text("epoch", "text", 1)
    tags = read_tags(tmp_path)
    assert tags["_hparams_/session_start_info"][0] == "hparams"
    assert tags["_hparams_/session_start_info/metric"] == ("scalars", [1])
    assert tags["custom_scalars__config__"][0] == "custom_scalars"
    assert tags["custom_scalars__config__/text"] == ("text", [1])
    assert tags["epoch"] == ("scalars", [1])
    assert tags["epoch/text"] == ("text", [1])


def test_kind_that_arrives_in_later_batch_after_crash_is_kept(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", TensorBoardSink())
    run.log(1, {"x": 1.0})
    run.deliver()
    run.crash()
    run.journal.append(events.Text, "x", 1, "text")
    run.deliver(save_cursor=False)
    run.log(2, {"x": 2.0})
    run.end()
    assert read_tags(run.directory) == {"x": ("scalars", [1, 2]), "x/text": ("text", [1])}


@pytest.mark.parametrize("lose_file", [False, True])
def test_rewind_keeps_kind_of_each_tag(tmp_path: Path, lose_file: bool) -> None:
    run = RecordedRun(tmp_path / "run", TensorBoardSink())
    start = run.log(1, {"y": 1.0})
    run.journal.append(events.Text, "x", 1, "superseded")
    run.log(2, {"x": 2.0})
    run.deliver()
    run.journal.rewind(start, 1)
    run.deliver()
    run.log(2, {"x": 3.0})
    run.journal.append(events.Text, "x", 2, "text")
    run.deliver()
    if lose_file:
        run.crash()
        for path in run.directory.glob("*tfevents*"):
            path.unlink()
    run.log(3, {"x": 4.0})
    run.end()
    tags = read_tags(run.directory)
    assert tags["x/metric"][1][-2:] == [2, 3]
    assert tags["x"][0] == "text"


def test_name_of_another_kind_in_archived_run_is_shown(tmp_path: Path) -> None:
    with pte.Run(tmp_path, sinks=["tensorboard"]) as run:
        run.log_text("note", "text", 1)
        run.log_image("sample", np.zeros((4, 4)), 1)
    with pte.Run(tmp_path, sinks=["tensorboard"]) as run:
        run.log_metrics({"note": 1.0, "sample": 2.0}, 1)
        run.log_metrics({"note": 1.0, "sample": 2.0}, 2)
    assert read_tags(tmp_path) == {"note": ("scalars", [1, 2]), "sample": ("scalars", [1, 2])}
