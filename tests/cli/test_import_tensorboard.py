"""``pte-tracking import`` of event files, written by the libraries that users have."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.compat.proto import event_pb2
from torch.utils.tensorboard import SummaryWriter

import pte_tracking as pte
from pte_backends.tensorboard._records import encode_record
from pte_tracking._runs.stored_run import StoredRun
from pte_tracking._store.events import Histogram, Image, Text
from pte_tracking._store.journal_reader import find_events
from tests.cli.invocation import invoke


def import_run(source: Path, target: Path, *arguments: str) -> StoredRun:
    result = invoke("import", source, target, *arguments)
    assert result.exit_code == 0, result.output
    (run,) = pte.open_runs(target)
    return run


def points(run: StoredRun) -> list[tuple[Any, ...]]:
    frame = run.frame("points")
    return list(zip(frame["key"], frame["step"], frame["value"], frame["time"], strict=True))


def write(folder: Path, steps: range, **options: Any) -> None:
    with SummaryWriter(str(folder), **options) as writer:
        for step in steps:
            writer.add_scalar("loss", step / 4, step, walltime=1000.0 + step)


def test_scalars_of_torch_keep_step_value_and_time(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "logs" / "first")) as writer:
        writer.add_scalar("loss", 0.5, 3, walltime=1000.25)
        writer.add_scalar("accuracy", math.nan, 3, walltime=1001.5, new_style=True)
        writer.add_scalar("exact", 0.1, 3, walltime=1001.5, new_style=True, double_precision=True)
        writer.add_scalar("loss", -math.inf, 1, walltime=1002.0)
    run = import_run(tmp_path / "logs" / "first", tmp_path / "run")
    stored = points(run)
    assert stored[0] == ("loss", 3, 0.5, 1000.25)
    assert stored[1][:2] == ("accuracy", 3)
    assert math.isnan(stored[1][2])
    assert stored[2:] == [("exact", 3, 0.1, 1001.5), ("loss", 1, -math.inf, 1002.0)]
    assert (run.name, run.status) == ("first", "FINISHED")
    assert run.tags == {"imported_from": str(tmp_path / "logs" / "first")}
    rows = json.loads((tmp_path / "run" / "log").read_text())
    assert rows == [
        {"loss": 0.5, "accuracy": None, "exact": 0.1, "iteration": 3},
        {"loss": None, "iteration": 1},
    ]


def test_system_metrics_are_points_of_no_row_and_no_step_of_the_run(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        writer.add_scalar("system/cpu", 50.0, 1, walltime=1000.0)
        writer.add_scalar("loss", 0.5, 2, walltime=1001.0)
        writer.add_scalar("system/cpu", 60.0, 7, walltime=1002.0)
    run = import_run(tmp_path / "logs", tmp_path / "run")
    assert sorted(points(run)) == [
        ("loss", 2, 0.5, 1001.0),
        ("system/cpu", 1, 50.0, 1000.0),
        ("system/cpu", 7, 60.0, 1002.0),
    ]
    assert json.loads((tmp_path / "run" / "log").read_text()) == [{"loss": 0.5, "iteration": 2}]
    (listed,) = json.loads(invoke("list", tmp_path, "--json").output)
    assert listed["step"] == 2


def test_media_of_torch_are_imported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        writer.add_histogram("weights", torch.tensor([0.0, 1.0, 1.0, 4.0]), 2)
        writer.add_image("../../escape", torch.zeros(3, 4, 5), 2)
        writer.add_text("note", "some *text*", 2)
        writer.add_audio("sound", torch.zeros(1, 10), 2)
    result = invoke("import", tmp_path / "logs", tmp_path / "run")
    assert "imported 1 histogram, 1 image, 1 text from tensorboard" in result.output
    assert "not imported: audio (1)" in caplog.text
    journal = tmp_path / "run" / "journal.jsonl"
    (histogram,), (image,), (text,) = (
        [event for event, _ in find_events(journal, kind)] for kind in (Histogram, Image, Text)
    )
    assert (histogram.min, histogram.max, histogram.sum, sum(histogram.counts)) == (0.0, 4.0, 6.0, 4.0)
    assert histogram.edges == sorted(histogram.edges)
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert (tmp_path / "run" / image.path).read_bytes().startswith(b"\x89PNG")
    assert (image.key, image.step) == ("../../escape", 2)
    assert (tmp_path / "run").resolve() in (tmp_path / "run" / image.path).resolve().parents
    assert (text.key, text.text) == ("note/text_summary", "some *text*")


def test_hyperparameters_and_status_are_imported(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        writer.add_hparams({"lr": 0.1, "layers": 3, "name": "a", "nesterov": True}, {"loss": 1.0}, run_name=".")
    run = import_run(tmp_path / "logs", tmp_path / "run")
    assert run.params == {"lr": 0.1, "layers": 3, "name": "a", "nesterov": True}
    with pte.Run(tmp_path / "failed", sinks=["tensorboard"], params={"lr": 0.5}) as own:
        own.log_metrics({"loss": 1.0}, 1)
        own.close("FAILED")
    (file,) = (tmp_path / "failed").glob("events*")
    assert import_run(file, tmp_path / "second").status == "FAILED"


def test_several_files_with_purge_step_are_one_run_without_superseded_points(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "logs", range(1, 6), filename_suffix=".1")
    write(tmp_path / "logs", range(4, 7), filename_suffix=".2", purge_step=4)
    invoke("import", tmp_path / "logs", tmp_path / "run")
    assert "2 values were left out, because the program restarted" in caplog.text
    (run,) = pte.open_runs(tmp_path / "run")
    assert [step for _, step, _, _ in points(run)] == [1, 2, 3, 4, 5, 6]


def test_overlapping_files_without_purge_step_keep_all_points(tmp_path: Path) -> None:
    write(tmp_path / "logs", range(1, 4), filename_suffix=".1")
    write(tmp_path / "logs", range(2, 4), filename_suffix=".2")
    assert [step for _, step, _, _ in points(import_run(tmp_path / "logs", tmp_path / "run"))] == [1, 2, 3, 2, 3]


def test_files_of_one_second_are_imported_in_order_of_their_start(tmp_path: Path) -> None:
    for step in (9, 10):  # As names, 10 precedes 9.
        write(tmp_path / "logs", range(step, step + 1))
        (file,) = (path for path in (tmp_path / "logs").iterdir() if not path.name.startswith("events.out.tfevents.1."))
        file.rename(tmp_path / "logs" / f"events.out.tfevents.1.host.1.{step}")
    assert [step for _, step, _, _ in points(import_run(tmp_path / "logs", tmp_path / "run"))] == [9, 10]


def test_tensorboardx_file_is_imported(tmp_path: Path) -> None:
    tensorboardx = pytest.importorskip("tensorboardX")
    writer = tensorboardx.SummaryWriter(str(tmp_path / "logs"))
    writer.add_scalar("loss", 0.5, 7, walltime=1000.0)
    writer.close()
    assert points(import_run(tmp_path / "logs", tmp_path / "run")) == [("loss", 7, 0.5, 1000.0)]


@pytest.mark.parametrize("damage", ["truncated", "checksum"])
def test_damaged_file_is_imported_up_to_damage(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "logs", range(1, 6))
    (file,) = (tmp_path / "logs").iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:-10] if damage == "truncated" else data[:-10] + b"?" + data[-9:])
    result = invoke("import", file, tmp_path / "run")
    assert result.exit_code == 0
    assert "damaged after event 5" in caplog.text
    (run,) = pte.open_runs(tmp_path / "run")
    assert [step for _, step, _, _ in points(run)] == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"some text, which is not an event file"])
def test_file_without_events_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(content)
    result = invoke("import", file, tmp_path / "run")
    assert result.exit_code == 1
    assert ("not a TensorBoard event file" if content else "contains no metrics") in result.output
    assert list(tmp_path.iterdir()) == [file]


def test_histogram_that_is_not_finite_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    event = event_pb2.Event(wall_time=1000.0, step=1)
    histo = {"min": 0.0, "max": math.inf, "bucket_limit": [1.0], "bucket": [1.0]}
    event.summary.value.add(tag="weights", histo=histo)
    event.summary.value.add(tag="loss", simple_value=1.0)
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(encode_record(event))
    run = import_run(file, tmp_path / "run")
    assert "histogram without finite numbers (1)" in caplog.text
    assert list(run.metrics) == ["loss"]
    assert invoke("verify", tmp_path / "run").exit_code == 0


def test_directory_of_several_runs_is_refused_with_their_names(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "notes.txt").touch()
    for name in ("first", "second"):
        write(tmp_path / "logs" / name, range(1, 2))
    result = invoke("import", tmp_path / "logs", tmp_path / "run")
    assert result.exit_code == 1
    assert f"import them one by one: {tmp_path}/logs/first, {tmp_path}/logs/second" in result.output


def test_huge_and_unusual_tags_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tags = ["x" * 100_000, "/etc/passwd", "a\nb", "ä"]
    event = event_pb2.Event(wall_time=1000.0, step=-5)
    for tag in [*tags, ""]:
        event.summary.value.add(tag=tag, simple_value=1.0)
    file = tmp_path / "events.out.tfevents.1"
    file.write_bytes(encode_record(event))
    invoke("import", file, tmp_path / "run")
    assert "value without a name (1)" in caplog.text
    (run,) = pte.open_runs(tmp_path / "run")
    assert list(run.metrics) == tags
