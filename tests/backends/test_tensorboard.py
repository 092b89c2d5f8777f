"""What the TensorBoard sink writes, read back with TensorBoard's own EventAccumulator."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata

from pte_backends.tensorboard import TensorBoardSink
from pte_backends.tensorboard._custom_scalars import subject
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import journal, journal_reader
from pte_tracking._store.events import (
    AnyEvent,
    Artifact,
    Dataset,
    Figure,
    Histogram,
    Image,
    Metrics,
    Params,
    Rewound,
    RunEnded,
    RunStarted,
    Status,
    Tags,
    Text,
)
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking.sinks import Connection, RejectedEventError

TIME = 1_700_000_000.0


@dataclasses.dataclass
class Journal:
    """A run whose journal is a list."""

    directory: Path
    events: list[AnyEvent] = dataclasses.field(default_factory=list)
    id: str = "0123456789abcdef0123456789abcdef"
    name: str = "result"
    start_time: float = TIME
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def add(self, kind: type[AnyEvent], *fields: Any) -> AnyEvent:
        seq = len(self.events) + 1
        self.events.append(kind(seq, TIME + seq / 8, *fields))
        return self.events[-1]

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        kept: list[AnyEvent] = []
        for event in self.events[:upto_seq]:
            if isinstance(event, Rewound):
                kept = [earlier for earlier in kept if earlier.seq <= event.to_seq]
            kept.append(event)
        return iter(kept)

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        return (event for event in self.history(rewound.seq - 1) if event.seq > rewound.to_seq)


def connect(run: Journal, state: Mapping[str, Any] | None = None) -> Connection:
    # Through JSON, as the state is saved.
    return TensorBoardSink().open(run, json.loads(json.dumps(state or {})))


def deliver(run: Journal, events: Sequence[AnyEvent] = (), status: Status | None = None) -> dict[str, Any]:
    connection = connect(run)
    connection.write(events or run.events)
    connection.close(status)
    return connection.state()


def read(run: Journal) -> EventAccumulator:
    return EventAccumulator(str(run.directory), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()


def scalars(run: Journal) -> dict[str, list[tuple[int, str, float]]]:
    """The points of each tag: step, value (as text, since NaN differs from itself), time."""
    accumulator = read(run)
    return {
        tag: [(event.step, repr(event.value), event.wall_time) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def as_float32(value: float) -> str:
    with np.errstate(over="ignore"):
        return repr(float(np.float32(value)))


def expected(history: Iterable[AnyEvent]) -> dict[str, list[tuple[int, str, float]]]:
    """The points that a history makes."""
    points: dict[str, list[tuple[int, str, float]]] = {}
    for row in history:
        if isinstance(row, Metrics):
            epoch = {} if row.epoch is None or "epoch" in row.values else {"epoch": row.epoch}
            for key, value in (row.values | epoch).items():
                point = row.step, as_float32(float(value)), row.time
                if key in row.values or row.step not in [step for step, *_ in points.get(key, [])]:
                    points.setdefault(key, []).append(point)
    return points


def plugin_data(run: Journal, tag: str) -> bytes:
    content: bytes = read(run).SummaryMetadata(tag).plugin_data.content
    return content


def status_of(run: Journal) -> str | None:
    if metadata.SESSION_END_INFO_TAG not in read(run).Tags()["tensors"]:
        return None
    info = metadata.parse_session_end_info_plugin_data(plugin_data(run, metadata.SESSION_END_INFO_TAG))
    return str(api_pb2.Status.Name(info.status))


def hparams(run: Journal) -> dict[str, Any]:
    info = metadata.parse_session_start_info_plugin_data(plugin_data(run, metadata.SESSION_START_INFO_TAG))
    assert info.group_name == f"{run.name}-{run.id[:6]}"
    assert info.start_time_secs == run.start_time
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in info.hparams.items()}


def charts(run: Journal) -> dict[str, list[str]]:
    accumulator = read(run)
    if "custom_scalars__config__" not in accumulator.Tags()["tensors"]:
        return {}
    layout = layout_pb2.Layout.FromString(
        accumulator.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    )
    return {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}


def event_files(run: Journal) -> list[Path]:
    return sorted(run.directory.glob("*tfevents*"))


@contextlib.contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """As on a full disk, no file grows beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def run(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


NUMBERS = st.floats() | st.integers(-(2**63), 2**63 - 1)
ROWS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), NUMBERS, max_size=5)


@settings(max_examples=50)
@given(st.lists(ROWS, min_size=1, max_size=8))
def test_metrics_any_number_and_key_round_trip_as_float32(rows: list[dict[str, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = Journal(Path(folder))
        for step, row in enumerate(rows):
            run.add(Metrics, step, row)
        deliver(run)
        assert scalars(run) == expected(run.history())


def test_epoch_is_written_once_per_step(run: Journal) -> None:
    run.add(Metrics, 1, {"a": 1.0}, 0.5)
    run.add(Metrics, 1, {"b": 1.0}, 0.5, None, "other")
    run.add(Metrics, 2, {"a": 1.0})
    run.add(Metrics, 3, {"a": 1.0, "epoch": 7.0}, 1.5)
    deliver(run)
    assert [(step, value) for step, value, _ in scalars(run)["epoch"]] == [(1, "0.5"), (3, "7.0")]


def test_histogram_round_trips_with_bins(run: Journal) -> None:
    run.add(Histogram, "weights", 3, [-1.0, 0.0, 0.5, 2.0], [4.0, 0.0, 2.0], -1.0, 2.0, 1.5, 9.25)
    deliver(run)
    [event] = read(run).Histograms("weights")
    histogram = event.histogram_value
    assert (event.step, event.wall_time) == (3, run.events[0].time)
    assert (histogram.min, histogram.max, histogram.sum, histogram.sum_squares) == (-1, 2, 1.5, 9.25)
    assert (histogram.num, histogram.bucket_limit, histogram.bucket) == (6, [0.0, 0.5, 2.0], [4.0, 0.0, 2.0])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("P", 3), ("RGBA", 4)])
def test_image_bytes_are_stored_unchanged(run: Journal, mode: str, channels: int) -> None:
    PIL.Image.new(mode, (7, 5)).save(run.directory / "picture.png")
    run.add(Image, "picture", 2, "picture.png")
    run.add(Figure, "figure", 3, "picture.png")
    deliver(run)
    accumulator = read(run)
    for tag, step in [("picture", 2), ("figure", 3)]:
        [event] = accumulator.Images(tag)
        assert (event.step, event.width, event.height) == (step, 7, 5)
        assert event.encoded_image_string == (run.directory / "picture.png").read_bytes()
    raw = event_files(run)[0].read_bytes()
    assert raw.count(bytes([0x18, channels, 0x22])) == 2  # the fields colorspace and encoded_image_string of an image


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_image_missing_or_damaged_raises_rejected_event_error(run: Journal, content: bytes | None) -> None:
    if content is not None:
        (run.directory / "picture.png").write_bytes(content)
    run.add(Metrics, 1, {"a": 1.0}, 0.5)
    run.add(Image, "picture", 1, "picture.png")
    run.add(Metrics, 2, {"a": 2.0}, 1.0)
    connection = connect(run)
    with pytest.raises(RejectedEventError, match=r"picture\.png") as caught:
        connection.write(run.events)
    assert caught.value.seq == 2
    assert scalars(run) == {}
    connection.write([run.events[0], run.events[2]])
    assert scalars(run) == expected(run.history())


def test_dataset_is_written_as_text(run: Journal) -> None:
    run.add(Dataset, "digits", "abc", "train", "https://example.org")
    deliver(run)
    [event] = read(run).Tensors("dataset/train/digits")
    text = event.tensor_proto.string_val[0].decode()
    assert (event.step, text) == (0, "- digest: `abc`\n- used for: train\n- source: https://example.org")


def test_text_round_trips(run: Journal) -> None:
    run.add(Text, "note", 4, "# Grüße\n\n* 学習")
    deliver(run)
    [event] = read(run).Tensors("note")
    assert (event.step, event.tensor_proto.string_val[0].decode()) == (4, "# Grüße\n\n* 学習")


def test_tags_and_artifacts_are_skipped(run: Journal) -> None:
    run.add(Tags, {"team": "vision"})
    run.add(Artifact, "model.onnx")
    deliver(run, status="FINISHED")
    assert read(run).Tags()["tensors"] == []


# -- the HPARAMS page --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "shown"), [("FINISHED", "STATUS_SUCCESS"), ("FAILED", "STATUS_FAILURE"), ("KILLED", "STATUS_FAILURE")]
)
def test_params_and_status_appear_in_hparams(run: Journal, status: Status, shown: str) -> None:
    run.add(Params, {"lr": 0.1, "layers": 3, "amp": True, "optim/name": "Adam", "none": None, "seed": 2**60})
    run.add(RunEnded, status)
    deliver(run, status=status)
    assert hparams(run) == {
        "lr": 0.1,
        "layers": 3.0,
        "amp": True,
        "optim/name": "Adam",
        "none": "None",
        "seed": str(2**60),
    }
    assert status_of(run) == shown
    end = metadata.parse_session_end_info_plugin_data(plugin_data(run, metadata.SESSION_END_INFO_TAG))
    assert end.end_time_secs == run.events[-1].time


def test_running_run_has_no_status(run: Journal) -> None:
    run.add(Params, {"lr": 0.1})
    deliver(run)
    assert status_of(run) is None


def test_changed_params_are_merged_at_run_end(run: Journal) -> None:
    run.add(Params, {"lr": 0.1, "layers": 3})
    run.add(Metrics, 1, {"a": 1.0})
    run.add(Params, {"lr": 0.2, "seed": 1})
    deliver(run, status="FINISHED")
    assert hparams(run) == {"lr": 0.2, "layers": 3, "seed": 1}
    assert scalars(run) == expected(run.history())
    assert status_of(run) == "STATUS_SUCCESS"


def test_repeated_params_create_no_new_file(run: Journal) -> None:
    run.add(Params, {"lr": 0.1})
    run.add(Params, {"lr": 0.1})
    deliver(run, status="FINISHED")
    assert len(event_files(run)) == 1


def test_resumed_run_shows_final_status(run: Journal) -> None:
    run.add(Params, {"lr": 0.1})
    run.add(Metrics, 1, {"a": 1.0})
    state = deliver(run, status="FAILED")
    assert status_of(run) == "STATUS_FAILURE"
    connection = connect(run, state)
    connection.write([run.add(RunStarted, run.id, run.name, 1, "host", True), run.add(Metrics, 2, {"a": 2.0})])
    assert status_of(run) is None
    connection.close("FINISHED")
    assert status_of(run) == "STATUS_SUCCESS"
    assert scalars(run) == expected(run.history())


def test_unsaved_end_status_is_replaced_on_resume(run: Journal) -> None:
    run.add(Params, {"lr": 0.1})
    connection = connect(run)
    connection.write(run.events)
    state = connection.state()
    connection.close("FAILED")
    connection = connect(run, state)
    connection.write([run.add(RunStarted, run.id, run.name, 1, "host", True)])
    connection.close("FINISHED")
    assert status_of(run) == "STATUS_SUCCESS"


# -- the Custom Scalars page -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "of"),
    [
        ("train/loss", "loss"),
        ("val/loss", "loss"),
        ("val_loss", "loss"),
        ("main/accuracy", "accuracy"),
        ("validation/main/accuracy", "accuracy"),
        ("Test/top/5", "top/5"),
        ("trainer/loss", None),
        ("lr", None),
        ("train/", None),
    ],
)
def test_subject_strips_train_and_validation_prefix(tag: str, of: str | None) -> None:
    assert subject(tag) == of


def test_train_and_validation_metrics_share_chart(run: Journal) -> None:
    run.add(Metrics, 1, {"train/loss": 1.0, "lr": 0.1, "train/a+b": 1.0})
    connection = connect(run)
    connection.write(run.events)
    assert charts(run) == {}
    connection.write([run.add(Metrics, 2, {"val/loss": 1.0, "val/a+b": 1.0, "val/only": 1.0})])
    connection.write([run.add(Metrics, 3, {"test/loss": 1.0})])
    assert charts(run) == {
        "loss": ["^test/loss$", "^train/loss$", "^val/loss$"],
        r"a+b": [r"^train/a\+b$", r"^val/a\+b$"],
    }


def test_superseded_chart_layout_is_rebuilt(run: Journal) -> None:
    run.add(Metrics, 1, {"train/loss": 1.0})
    run.add(Metrics, 2, {"val/loss": 1.0})
    connection = connect(run)
    connection.write(run.events)
    connection.write([run.add(Rewound, 1, 0, 1)])
    assert charts(run) == {}
    connection.write([run.add(Metrics, 2, {"val/loss": 1.0})])
    assert charts(run) == {"loss": ["^train/loss$", "^val/loss$"]}


# -- delivered again ---------------------------------------------------------------------------------------------------


def rows(run: Journal, steps: range) -> list[AnyEvent]:
    return [run.add(Metrics, step, {"train/loss": step / 7, "val/loss": math.nan}, step / 10) for step in steps]


def test_batch_redelivered_after_crash_is_written_once(run: Journal) -> None:
    run.add(Params, {"lr": 0.1})
    first, second = rows(run, range(5)), rows(run, range(5, 9))
    connection = connect(run)
    connection.write(run.events[: 1 + len(first)])
    state = connection.state()
    connection.write(second)
    connection = connect(run, state)
    connection.write(second)
    connection.write(rows(run, range(9, 12)))
    assert scalars(run) == expected(run.history())


def test_lost_state_full_redelivery_writes_points_once(run: Journal) -> None:
    run.add(Params, {"lr": 0.1})
    rows(run, range(9))
    deliver(run)
    deliver(run)
    assert scalars(run) == expected(run.history())


@pytest.mark.parametrize("missing", [1, 4, 5, 11, 12, 13, 50, 100])
def test_file_truncated_within_record_is_repaired(run: Journal, missing: int) -> None:
    connection = connect(run)
    connection.write(rows(run, range(3)))
    state = connection.state()
    again = rows(run, range(3, 6))
    connection.write(again)
    [path] = event_files(run)
    os.truncate(path, path.stat().st_size - missing)
    connection = connect(run, state)
    connection.write(again)
    assert scalars(run) == expected(run.history())


@pytest.mark.parametrize("remaining_bytes", [None, 0, 10, 200])
def test_file_without_delivered_data_is_rebuilt_from_journal(run: Journal, remaining_bytes: int | None) -> None:
    PIL.Image.new("L", (2, 2)).save(run.directory / "picture.png")
    run.add(Params, {"lr": 0.1})
    run.add(Params, {"lr": 0.2})
    run.add(Image, "picture", 1, "picture.png")
    run.add(Image, "gone", 1, "gone.png")
    rows(run, range(9))
    connection = connect(run)
    connection.write([event for event in run.events if not (isinstance(event, Image) and event.key == "gone")])
    state = connection.state()
    [path] = event_files(run)
    if remaining_bytes is None:
        path.unlink()
    else:
        os.truncate(path, remaining_bytes)
    connection = connect(run, state)
    connection.write(rows(run, range(9, 12)))
    connection.close("FINISHED")
    assert scalars(run) == expected(run.history())
    assert len(read(run).Images("picture")) == 1
    assert hparams(run) == {"lr": 0.2}


def test_full_disk_keeps_whole_records_and_batch_is_retried(run: Journal) -> None:
    connection = connect(run)
    connection.write(rows(run, range(3)))
    [path] = event_files(run)
    before = scalars(run)
    state, again = connection.state(), rows(run, range(3, 9))
    with limit_file_size(path.stat().st_size + 150), pytest.raises(OSError, match="File too large"):
        connection.write(again)
    assert scalars(run) == before
    connection.close(None)
    connection = connect(run, state)
    connection.write(again)
    assert len(event_files(run)) == 1
    assert scalars(run) == expected(run.history())


def test_full_disk_during_rewind_leaves_file_unchanged(run: Journal) -> None:
    connection = connect(run)
    connection.write(rows(run, range(50)))
    before, state = scalars(run), connection.state()
    rewound = run.add(Rewound, 30, 0, 29)
    with limit_file_size(1000), pytest.raises(OSError, match="File too large"):
        connection.write([rewound])
    assert scalars(run) == before
    connection.close(None)
    connection = connect(run, state)
    connection.write([rewound])
    assert scalars(run) == expected(run.history())


def test_row_delivered_in_parts_is_complete(run: Journal) -> None:
    connection = connect(run)
    connection.write(rows(run, range(2)))
    first = run.add(Metrics, 2, {"a": 1.0}, 0.2)
    second_part = Metrics(first.seq, first.time, 2, {"b": 2.0}, 0.2)
    connection.write([first])
    with pytest.raises(RejectedEventError):
        connection.write([second_part, Image(first.seq + 1, first.time, "gone", 2, "gone.png")])
    connection.write([second_part])
    run.events[-1] = Metrics(first.seq, first.time, 2, {"a": 1.0, "b": 2.0}, 0.2)
    assert scalars(run) == expected(run.history())


# -- taken back --------------------------------------------------------------------------------------------------------


def test_rewind_removes_superseded_events_of_all_kinds(run: Journal) -> None:
    PIL.Image.new("L", (2, 2)).save(run.directory / "picture.png")
    connection = connect(run)
    for step in range(1, 9):
        run.add(Metrics, step, {"a": float(step)} | ({"late": 1.0} if step > 5 else {}))
        run.add(Image, "picture", step, "picture.png")
        run.add(Histogram, "weights", step, [0.0, 1.0], [2.0], 0.0, 1.0, 1.0, 1.0)
        run.add(Text, "note", step, str(step))
        if step == 5:
            kept = run.events[-1].seq
    connection.write(run.events)
    connection.write([run.add(Rewound, kept, 0, 5)])
    accumulator = read(run)
    assert accumulator.Tags()["scalars"] == ["a"]
    assert [event.step for event in accumulator.Scalars("a")] == [1, 2, 3, 4, 5]
    assert [event.step for event in accumulator.Images("picture")] == [1, 2, 3, 4, 5]
    assert [event.step for event in accumulator.Histograms("weights")] == [1, 2, 3, 4, 5]
    assert [event.step for event in accumulator.Tensors("note")] == [1, 2, 3, 4, 5]


def test_open_reader_follows_rewind(run: Journal) -> None:
    connection = connect(run)
    connection.write(rows(run, range(9)))
    reader = read(run)
    connection.write([run.add(Rewound, 5, 0, 4)])
    connection.write(rows(run, range(5, 7)))
    reader.Reload()
    assert [event.step for event in reader.Scalars("train/loss")] == [0, 1, 2, 3, 4, 5, 6]


def test_rewind_without_saved_state_is_applied_again(run: Journal) -> None:
    connection = connect(run)
    connection.write(rows(run, range(9)))
    state = connection.state()
    [old] = event_files(run)
    content = old.read_bytes()
    rewound = run.add(Rewound, 5, 0, 4)
    connection.write([rewound])
    old.write_bytes(content)  # killed before the old file was emptied
    (run.directory / f".tensorboard.{run.id}.tmp").write_bytes(content)
    connection = connect(run, state)
    connection.write([rewound])
    connection.write(rows(run, range(5, 7)))
    assert scalars(run) == expected(run.history())
    assert not list(run.directory.glob(".*"))
    assert [bool(path.stat().st_size) for path in event_files(run)] == [False, True]


def test_superseded_params_revert_to_earlier_values(run: Journal) -> None:
    run.add(Params, {"lr": 0.1})
    rows(run, range(3))
    run.add(Params, {"lr": 0.2, "seed": 1})
    rows(run, range(3, 6))
    connection = connect(run)
    connection.write(run.events)
    connection.write([run.add(Rewound, 4, 0, 3)])
    connection.close("FINISHED")
    assert hparams(run) == {"lr": 0.1}


def test_rewind_to_end_of_file_creates_no_new_file(run: Journal) -> None:
    connection = connect(run)
    connection.write(rows(run, range(3)))
    connection.write([run.add(RunEnded, "KILLED")])
    connection.write([run.add(Rewound, 3, 0, 2)])
    connection.write(rows(run, range(3, 5)))
    assert scalars(run) == expected(run.history())
    assert len(event_files(run)) == 1


def test_event_file_names_sort_after_earlier_files(run: Journal) -> None:
    earlier = run.directory / "events.out.tfevents.9000000000.node.1.0"
    earlier.touch()
    connection = connect(run)
    connection.write(rows(run, range(3)))
    for step in range(3):
        connection.write([run.add(Rewound, 1, 0, 0)])
        connection.write(rows(run, range(1, 2 + step)))
    names = [path.name for path in event_files(run)]
    assert names[0] == earlier.name
    assert len(names) == 5
    assert event_files(run)[-1].stat().st_size
    assert scalars(run) == expected(run.history())


@pytest.mark.parametrize("kind", ["figure", "text"])
def test_repeated_step_keeps_last_effective_event(run: Journal, kind: str) -> None:
    connection = connect(run)
    for text in ["first", "second", "third"]:
        PIL.Image.new("L", (len(text), 1)).save(run.directory / f"{text}.png")
        run.add(Figure, "a", 1, f"{text}.png") if kind == "figure" else run.add(Text, "a", 1, text)
    run.add(Metrics, 1, {"b": 1.0})
    connection.write(run.events)
    connection.write([run.add(Rewound, 2, 0, 1)])
    connection.close("FINISHED")
    accumulator = read(run)
    if kind == "figure":
        assert [event.width for event in accumulator.Images("a")] == [len("second")]
    else:
        assert [event.tensor_proto.string_val[0] for event in accumulator.Tensors("a")] == [b"second"]


EVENTS = st.one_of(
    st.tuples(st.just("log"), st.integers(1, 4)),
    st.tuples(st.just("params"), st.integers(0, 2)),
    st.tuples(st.just("picture"), st.none()),
    st.tuples(st.just("deliver"), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 300)),
    st.tuples(st.just("lose progress"), st.none()),
    st.tuples(st.just("lose file"), st.none()),
    st.tuples(st.just("rewind"), st.floats(0, 1)),
    st.tuples(st.just("crash in a rewind"), st.floats(0, 1)),
    st.tuples(st.just("end"), st.sampled_from(["FINISHED", "FAILED", "KILLED"])),
)


class SimulatedRun:
    """A run in a real journal, its delivery, and what may befall them."""

    def __init__(self, directory: Path) -> None:
        self.run = Journal(directory)
        self.manifest = Manifest(self.run.id, self.run.name, TIME)
        self.journal = journal.Journal(directory / JOURNAL)
        (directory / DELIVERY).mkdir()
        self.progress = directory / DELIVERY / "tensorboard.json"
        self.journal.append(RunStarted, self.run.id, self.run.name, 1, "host")
        self.marks = [self.journal.end]
        self.steps = [0]
        self.channel = self.open()
        PIL.Image.new("L", (2, 2)).save(directory / "picture.png")

    def open(self) -> SinkConsumer:
        return SinkConsumer(self.run.directory, self.manifest, SinkEntry("tensorboard", "tensorboard"))

    def deliver(self, _: None = None) -> None:
        while self.channel.deliver_next():
            pass

    def history(self) -> list[AnyEvent]:
        return [event for event, _ in journal_reader.read_effective(self.run.directory / JOURNAL)]

    def befall(self, what: str, argument: Any) -> None:
        getattr(self, what.replace(" ", "_"))(argument)

    def log(self, count: int) -> None:
        for _ in range(count):
            step = self.steps[-1] + 1
            values: dict[str, float] = {"train/loss": 1 / step} | ({"val/loss": -1.0} if step % 3 == 0 else {})
            self.journal.append(Metrics, step, values, step / 4)
            self.marks.append(self.journal.end)
            self.steps.append(step)

    def params(self, value: int) -> None:
        self.journal.append(Params, {"lr": value, f"p{value}": 1})

    def picture(self, _: None) -> None:
        self.journal.append(Figure, "picture", self.steps[-1], "picture.png")

    def crash(self, lost: int) -> None:
        """The delivery is killed between a write and its saved position, or in the write."""
        self.log(1)
        self.deliver()
        before, known = self.progress.read_bytes(), self.channel.cursor.state["size"]
        self.log(2)
        self.deliver()
        path = event_files(self.run)[-1]
        os.truncate(path, max(path.stat().st_size - lost, known))
        self.progress.write_bytes(before)
        self.channel = self.open()
        self.deliver()

    def lose_progress(self, _: None) -> None:
        self.progress.unlink(missing_ok=True)
        self.channel = self.open()

    def lose_file(self, _: None) -> None:
        self.log(1)
        self.deliver()
        event_files(self.run)[-1].unlink()
        self.channel.finish(None)

    def rewind(self, part: float) -> None:
        index = int(part * (len(self.marks) - 1))
        self.journal.rewind(self.marks[index], self.steps[index])
        self.journal.append(RunStarted, self.run.id, self.run.name, 1, "host", True)
        self.marks, self.steps = self.marks[: index + 1], self.steps[: index + 1]

    def crash_in_a_rewind(self, part: float) -> None:
        """The delivery is killed between a rewind and its saved position."""
        self.log(1)
        self.deliver()
        before = self.progress.read_bytes()
        self.rewind(part)
        self.deliver()
        self.progress.write_bytes(before)
        self.channel = self.open()

    def end(self, status: Status) -> None:
        self.journal.append(RunEnded, status)
        self.deliver()
        self.channel.finish(status)
        self.journal.append(RunStarted, self.run.id, self.run.name, 1, "host", True)


@settings(max_examples=80)
@given(st.lists(EVENTS, min_size=1, max_size=12))
def test_event_file_after_random_faults_equals_effective_history(events: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        simulated = SimulatedRun(Path(folder))
        simulated.log(2)
        simulated.deliver()
        for what, argument in events:
            simulated.befall(what, argument)
        simulated.log(1)
        simulated.deliver()
        assert scalars(simulated.run) == expected(simulated.history())
        simulated.channel.finish("FINISHED")
        assert scalars(simulated.run) == expected(simulated.history())
        params: dict[str, Any] = {}
        pictures = set()
        for event in simulated.history():
            params |= event.values if isinstance(event, Params) else {}
            pictures |= {event.step} if isinstance(event, Figure) else set()
        accumulator = read(simulated.run)
        assert sorted(event.step for event in accumulator.Images("picture")) == sorted(pictures) if pictures else True
        assert not {"train/loss", "val/loss", "epoch"} & set(accumulator.Tags()["tensors"])
        assert params == (hparams(simulated.run) if params else {})
        assert status_of(simulated.run) == ("STATUS_SUCCESS" if params else None)


# -- what it costs to have ---------------------------------------------------------------------------------------------


def test_sink_import_and_open_load_no_heavy_packages(tmp_path: Path) -> None:
    code = (
        "import sys, types, pte_backends.tensorboard\n"
        "assert 'tensorboard' not in sys.modules and 'numpy' not in sys.modules\n"
        "from pathlib import Path\n"
        f"run = types.SimpleNamespace(directory=Path({str(tmp_path)!r}), id='0' * 32, start_time=1.0)\n"
        "pte_backends.tensorboard.TensorBoardSink().open(run, {})\n"
        "assert 'tensorboard' in sys.modules\n"
        "assert not {'torch', 'tensorflow', 'grpc'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
