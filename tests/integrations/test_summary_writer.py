"""SummaryWriter: the same calls give the same values as torch's class, and reach the run."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from pte_tracking.integrations.tensorboard import SummaryWriter
from pte_tracking.sinks import JOURNAL, Artifact, Audio, Histogram, Params, Text, Video, find_events

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.random((5, 3, 6, 7))
NORMAL = GENERATOR.normal(size=200)
LABELS, PREDICTIONS = GENERATOR.integers(0, 2, 50), GENERATOR.random(50)


def read(directory: Path) -> dict[str, dict[str, list[tuple[int, Any]]]]:
    """Return the points of each tag of each plugin that TensorBoard reads from the event files."""
    accumulator = EventAccumulator(str(directory)).Reload()
    points: dict[str, dict[str, list[tuple[int, Any]]]] = {}
    for plugin in {"scalars", "images", "text", "histograms", "audio"}.intersection(accumulator.ActivePlugins()):
        for tag in accumulator.PluginTagToContent(plugin):
            events = accumulator.Tensors(tag)
            values = [(event.step, convert(plugin, tensor_util.make_ndarray(event.tensor_proto))) for event in events]
            points.setdefault(plugin, {})[tag.removesuffix("/text_summary")] = values
    return points


def convert(plugin: str, array: Any) -> Any:
    if plugin == "images":
        return np.asarray(Image.open(io.BytesIO(array[2])).convert("RGB")).tolist()
    return array.ravel()[0] if plugin in ("text", "audio") else array.tolist()


def write_common(writer: Any) -> None:
    for step in (5, 3, 4):  # in any order
        writer.add_scalar("loss", torch.tensor(1.0 / step), step, walltime=1000.0 + step)
    writer.add_scalar("new", np.float32(0.25), np.int64(7), new_style=True, double_precision=True)
    writer.add_scalar("array", np.array([[2.5]]), torch.tensor(1))
    writer.add_scalar("without step", 3)
    writer.add_scalar("formatted", f"{1 / 3:.4f}", "7", walltime=np.float64(1008))
    writer.add_text("notes", "# Title\n\nä", 2)
    writer.add_image("chw", torch.from_numpy(PIXELS[0]), 1)
    writer.add_image("out of range", PIXELS[0] * 3 - 1, 1)
    writer.add_image("hwc", (PIXELS[0] * 255).astype(np.uint8).transpose(1, 2, 0), 2, dataformats="HWC")
    writer.add_image("gray", PIXELS[:1, 0], 1)
    writer.add_image("hw", PIXELS[0, 0] > 0.5, 1, dataformats="HW")
    writer.add_images("batch", PIXELS, 1)
    writer.add_images("long batch", np.tile(PIXELS[:, :1], (2, 1, 1, 1)), 1)
    writer.add_histogram_raw("raw", 0.5, 3, 4, 7.5, 15.5, [1, 2, 3], [1, 1, 2], 1)
    writer.flush()


def open_writer(directory: Path, **options: Any) -> SummaryWriter:
    return SummaryWriter(directory, sinks=["json", "tensorboard"], **options)


def test_common_calls_give_points_of_torch(tmp_path: Path) -> None:
    with TorchWriter(str(tmp_path / "torch")) as expected:
        write_common(expected)
    with open_writer(tmp_path / "ours") as writer:
        write_common(writer)
    ours, torchs = read(tmp_path / "ours"), read(tmp_path / "torch")
    for plugin in ("scalars", "text", "images"):
        assert {tag: sorted(points) for tag, points in ours[plugin].items()} == {
            tag: sorted(points) for tag, points in torchs[plugin].items()
        }
    (ours_raw,), (torch_raw,) = ours["histograms"]["raw"], torchs["histograms"]["raw"]
    assert np.array(ours_raw[1])[:, 2].sum() == np.array(torch_raw[1])[:, 2].sum() == 4
    assert [row.time for row in writer.run.rows() if "loss" in row.values] == [1005.0, 1003.0, 1004.0]


def test_histogram_has_moments_and_bins_of_torch(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path, sinks=[]) as writer:
        writer.add_histogram("default", torch.from_numpy(NORMAL), 1)
        writer.add_histogram("bins", NORMAL, 1, bins=[-1, 0, 1, 2], walltime=9.0)
        writer.add_histogram("joined", NORMAL, 1, bins=10, max_bins=4)
    events = {event.key: event for event, _ in find_events(tmp_path / JOURNAL, Histogram)}
    for event in events.values():
        assert (event.min, event.max) == (NORMAL.min(), NORMAL.max())
        assert event.sum == pytest.approx(NORMAL.sum())
        assert event.sum_squares == pytest.approx(NORMAL @ NORMAL)
    counts, edges = np.histogram(NORMAL, bins=[-1, 0, 1, 2])
    assert (events["bins"].counts, events["bins"].edges) == (counts.tolist(), edges.tolist())
    assert events["bins"].time == 9.0
    assert len(events["joined"].counts) == 4
    assert sum(events["joined"].counts) == sum(events["default"].counts) == NORMAL.size


def test_curve_equals_that_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.tensorboard.summary import compute_curve

    from pte_tracking.integrations import _curves

    precision, recall = _curves.compute_curve(LABELS, torch.from_numpy(PREDICTIONS), 64, None, "")
    *_, expected_precision, expected_recall = compute_curve(LABELS, PREDICTIONS, 64)
    np.testing.assert_allclose(precision, expected_precision)
    np.testing.assert_allclose(recall, expected_recall)


def test_other_calls_become_events_that_sinks_show(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    with open_writer(tmp_path / "run") as writer:
        writer.add_scalars("loss", {"train": 1.0, "val": 2.0}, 1)
        writer.add_figure("figure", Figure(), 1)
        writer.add_figure("figures", [Figure(figsize=(2, 1)), Figure(figsize=(2, 1))], 1)
        writer.add_image_with_boxes("boxes", torch.zeros(3, 40, 40), torch.tensor([[5, 6, 30, 20]]), 1, labels=["a"])
        writer.add_video("video", torch.rand(2, 3, 3, 8, 8), 1, fps=5)
        writer.add_audio("sound", torch.linspace(-1, 1, 100)[None], 1, sample_rate=8000)
        writer.add_mesh("mesh", torch.eye(3)[None], torch.ones(1, 3, 3), torch.tensor([[[0, 1, 2]]]))
        writer.add_embedding(torch.eye(3), ["a", "b\tc", "d"], torch.rand(3, 3, 4, 4), 2)
        writer.add_tensor("tensor", torch.arange(3), 1)
        writer.add_pr_curve("curve", LABELS, PREDICTIONS, 1)
        writer.add_pr_curve_raw("raw curve", [1], [1], [1], [1], [0.5, 1.0], [1.0, 0.2], 1)
        writer.add_graph(torch.nn.Linear(2, 3), torch.ones(1, 2))
        writer.add_onnx_graph(str(tmp_path / "model.onnx"))
        writer.add_hparams({"lr": 0.1}, {"hparam/accuracy": 0.5})
    shown = read(tmp_path / "run")
    assert set(shown["scalars"]) == {"loss/train", "loss/val", "hparam/accuracy"}
    assert set(shown["audio"]) == {"sound"}
    assert set(shown["images"]) == {"figure", "figures", "boxes", "video", "curve", "raw curve"}
    ((_, boxes),) = shown["images"]["boxes"]
    assert boxes[6][5] == [255, 0, 0]
    assert boxes[39][39] == [0, 0, 0]
    journal = tmp_path / "run" / JOURNAL
    files = {event.artifact_path: tmp_path / "run" / event.path for event, _ in find_events(journal, Artifact)}
    (video_event,), (sound_event,) = (list(find_events(journal, kind)) for kind in (Video, Audio))
    assert (video_event[0].key, video_event[0].fps, sound_event[0].sample_rate) == ("video", 5.0, 8000)
    with Image.open(tmp_path / "run" / video_event[0].path) as video:
        assert video.n_frames == 3
    with wave.open(str(tmp_path / "run" / sound_event[0].path)) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (8000, 100)
    assert files["meshes/mesh"].read_text().splitlines()[-1] == "3 0 1 2"
    assert np.load(files["tensors/tensor"]).tolist() == [0, 1, 2]
    config = text_format.Parse((tmp_path / "run" / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (shown_embedding,) = config.embeddings
    assert list(shown_embedding.sprite.single_image_dim) == [4, 4]
    embedding = (tmp_path / "run" / shown_embedding.tensor_path).parent
    assert embedding == files["embeddings/default/step_2"].parent
    assert (embedding / "metadata.tsv").read_text() == "a\nb c\nd\n"
    with Image.open(embedding / "sprite.png") as sprite:
        assert sprite.size == (8, 8)
    assert files["graph"].read_bytes() == b"onnx"
    assert [event.values for event, _ in find_events(journal, Params)] == [{"lr": 0.1}]
    assert ["Linear(in_features=2" in event.text for event, _ in find_events(journal, Text)] == [True]


def test_all_methods_of_torch_accept_its_arguments() -> None:
    import inspect

    for name, method in inspect.getmembers(TorchWriter, inspect.isfunction):
        if name.startswith("_") and name != "__init__":
            continue
        ours = list(inspect.signature(getattr(SummaryWriter, name)).parameters)
        expected = list(inspect.signature(method).parameters)
        assert ours[: len(expected)] == expected, name


def test_values_without_step_are_counted_across_sessions(tmp_path: Path) -> None:
    for options in ({}, {"resume": True}):
        with SummaryWriter(tmp_path, sinks=[], **options) as writer:
            for _ in range(2):
                writer.add_scalar("loss", 1.0)
    assert [row.step for row in writer.run.rows()] == [0, 1, 2, 3]


def test_scalars_without_step_in_any_order_have_one_point_per_step(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path, sinks=["json"]) as writer:
        writer.add_scalars("loss", {"train": 3, "val": 4})
        writer.add_scalars("loss", {"val": 2, "train": 1})
    assert [(row.step, row.values) for row in writer.run.rows()] == [
        (0, {"loss/train": 3, "loss/val": 4}),
        (1, {"loss/val": 2, "loss/train": 1}),
    ]


def test_threads_without_step_share_no_step(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path, sinks=[]) as writer:
        threads = [threading.Thread(target=writer.add_scalar, args=("loss", 1.0)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(row.step for row in writer.run.rows()) == list(range(8))


@pytest.mark.parametrize("step", ["first", [1], float("nan")])
def test_wrong_step_raises(tmp_path: Path, step: object) -> None:
    with (
        SummaryWriter(tmp_path, sinks=[]) as writer,
        pytest.raises(TypeError, match="global_step: expected an integer"),
    ):
        writer.add_scalar("loss", 1.0, step)


def test_wrong_walltime_raises_and_writes_nothing(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path, sinks=["json"]) as writer:
        for add, value in ((writer.add_scalar, 1.0), (writer.add_text, "a"), (writer.add_image, torch.zeros(3, 2, 2))):
            with pytest.raises(TypeError, match="walltime: expected a number, got 'noon'"):
                add("tag", value, 1, walltime="noon")
    assert not (tmp_path / JOURNAL).exists()


def test_default_directory_contains_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with SummaryWriter(comment="-lr", sinks=[]) as writer:
        writer.add_scalar("loss", 1.0, 1)
    (directory,) = (tmp_path / "runs").iterdir()
    assert writer.get_logdir() == f"runs/{directory.name}"
    assert directory.name.endswith("-lr")


def test_new_writer_archives_earlier_run(tmp_path: Path) -> None:
    for _ in range(2):
        with SummaryWriter(tmp_path, sinks=[]) as writer:
            writer.add_scalar("loss", 1.0, 1)
    assert len(writer.run.rows()) == 1
    assert len(list((tmp_path / "previous").iterdir())) == 1


def test_values_without_form_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pte_tracking"), SummaryWriter(tmp_path, sinks=[]) as writer:
        for _ in range(2):
            writer.add_custom_scalars({"a": {"b": ["Multiline", ["loss"]]}})
            writer.add_histogram("empty", np.array([np.nan]), 1)
            writer.add_hparams({"lr": 0.1}, {}, run_name="trial")
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [
        " add_custom_scalars",
        " add_histogram",
        " add_hparams",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda writer: writer.add_image("a", np.zeros((5, 4, 3))), "dataformats='HWC'"),
        (lambda writer: writer.add_image("a", np.zeros((4, 4)), 1), "dataformats='CHW'"),
        (lambda writer: writer.add_video("a", np.zeros((4, 4))), "batch, time, channels"),
        (lambda writer: writer.add_audio("a", np.zeros((2, 4))), "Pass one channel"),
        (lambda writer: writer.add_embedding(np.zeros((2, 4)), ["a"]), "one entry of metadata for each point"),
        (lambda writer: writer.add_pr_curve("a", [0, 1], [0.5, 1.5]), "sigmoid"),
        (lambda writer: writer.add_mesh("a", np.zeros((4, 3))), "expected vertices of shape"),
        (lambda writer: writer.add_histogram_raw("a", 0, 1, 1, 1, 1, [1], [1, 2]), "bucket_limits"),
    ],
)
def test_wrong_argument_raises(tmp_path: Path, call: Any, message: str) -> None:
    with SummaryWriter(tmp_path, sinks=[]) as writer, pytest.raises(ValueError, match=message):
        call(writer)


TRAIN = """
import os, signal, sys
from pte_tracking.integrations.tensorboard import SummaryWriter
writer = SummaryWriter("run", purge_step=int(sys.argv[1]))
for step in range(int(sys.argv[1]), 8):
    writer.add_scalar("loss", step + float(sys.argv[2]), step)
    writer.add_text("note", sys.argv[2], step)
    if step == 5 and sys.argv[2] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
writer.close()
"""


@pytest.mark.slow
def test_purge_step_after_kill_continues_run_with_one_point_per_step(tmp_path: Path) -> None:
    for arguments, status in ((["0", "0"], -signal.SIGKILL), (["4", "0.5"], 0)):
        command = [sys.executable, "-c", TRAIN, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), timeout=100)
        assert done.returncode == status
    shown = read(tmp_path / "run")
    assert shown["scalars"]["loss"] == [(step, step + 0.5 * (step >= 4)) for step in range(8)]
    assert [text for _, text in shown["text"]["note"]] == [b"0"] * 4 + [b"0.5"] * 4
    assert not (tmp_path / "run" / "previous").exists()
