"""TensorBoard event files, read back with TensorBoard's EventAccumulator."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.plugins.hparams import metadata

import pte_tracking as pte
from pte_backends.tensorboard._custom_scalars import get_subject
from pte_tracking._delivery.sync import sync
from pte_tracking._store.events import (
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
from pte_tracking.sinks import RejectedEventError
from tests.backends.event_files import (
    FakeRun,
    connect,
    deliver,
    expected,
    find_event_files,
    read,
    read_charts,
    read_hparams,
    read_plugin_data,
    read_scalars,
    read_status,
)


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path)


NUMBERS = st.floats() | st.integers(-(2**63), 2**63 - 1)
ROWS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), NUMBERS, max_size=5)


@settings(max_examples=50)
@given(st.lists(ROWS, min_size=1, max_size=8))
def test_metrics_any_number_and_key_round_trip_as_float32(generated_rows: list[dict[str, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = FakeRun(Path(folder))
        for step, row in enumerate(generated_rows):
            run.add(Metrics, step, row)
        deliver(run)
        assert read_scalars(run) == expected(run.history())


def test_epoch_is_written_once_per_step(run: FakeRun) -> None:
    run.add(Metrics, 1, {"a": 1.0}, 0.5)
    run.add(Metrics, 1, {"b": 1.0}, 0.5, None, "other")
    run.add(Metrics, 2, {"a": 1.0})
    run.add(Metrics, 3, {"a": 1.0, "epoch": 7.0}, 1.5)
    deliver(run)
    assert [(step, value) for step, value, _ in read_scalars(run)["epoch"]] == [(1, "0.5"), (3, "7.0")]


def test_histogram_round_trips_with_bins(run: FakeRun) -> None:
    run.add(Histogram, "weights", 3, [-1.0, 0.0, 0.5, 2.0], [4.0, 0.0, 2.0], -1.0, 2.0, 1.5, 9.25)
    deliver(run)
    [event] = read(run).Histograms("weights")
    histogram = event.histogram_value
    assert (event.step, event.wall_time) == (3, run.events[0].time)
    assert (histogram.min, histogram.max, histogram.sum, histogram.sum_squares) == (-1, 2, 1.5, 9.25)
    assert (histogram.num, histogram.bucket_limit, histogram.bucket) == (6, [0.0, 0.5, 2.0], [4.0, 0.0, 2.0])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("P", 3), ("RGBA", 4)])
def test_image_bytes_are_stored_unchanged(run: FakeRun, mode: str, channels: int) -> None:
    PIL.Image.new(mode, (7, 5)).save(run.directory / "picture.png")
    run.add(Image, "picture", 2, "picture.png")
    run.add(Figure, "figure", 3, "picture.png")
    deliver(run)
    accumulator = read(run)
    for tag, step in [("picture", 2), ("figure", 3)]:
        [event] = accumulator.Images(tag)
        assert (event.step, event.width, event.height) == (step, 7, 5)
        assert event.encoded_image_string == (run.directory / "picture.png").read_bytes()
    raw = find_event_files(run)[0].read_bytes()
    assert raw.count(bytes([0x18, channels, 0x22])) == 2  # The fields colorspace and encoded_image_string.


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_image_missing_or_damaged_raises_rejected_event_error(run: FakeRun, content: bytes | None) -> None:
    if content is not None:
        (run.directory / "picture.png").write_bytes(content)
    run.add(Metrics, 1, {"a": 1.0}, 0.5)
    run.add(Image, "picture", 1, "picture.png")
    run.add(Metrics, 2, {"a": 2.0}, 1.0)
    connection = connect(run)
    with pytest.raises(RejectedEventError, match=r"picture\.png") as caught:
        connection.write(run.events)
    assert caught.value.seq == 2
    assert read_scalars(run) == {}
    connection.write([run.events[0], run.events[2]])
    assert read_scalars(run) == expected(run.history())


def test_dataset_is_written_as_text(run: FakeRun) -> None:
    run.add(Dataset, "digits", "abc", "train", "https://example.org")
    deliver(run)
    [event] = read(run).Tensors("dataset/train/digits")
    text = event.tensor_proto.string_val[0].decode()
    assert (event.step, text) == (0, "- digest: `abc`\n- used for: train\n- source: https://example.org")


def test_text_round_trips(run: FakeRun) -> None:
    run.add(Text, "note", 4, "# Grüße\n\n* 学習")
    deliver(run)
    [event] = read(run).Tensors("note")
    assert (event.step, event.tensor_proto.string_val[0].decode()) == (4, "# Grüße\n\n* 学習")


def test_tags_and_artifacts_are_skipped(run: FakeRun) -> None:
    run.add(Tags, {"team": "vision"})
    run.add(Artifact, "model.onnx")
    deliver(run, status="FINISHED")
    assert read(run).Tags()["tensors"] == []


# -- HPARAMS page ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "shown"), [("FINISHED", "STATUS_SUCCESS"), ("FAILED", "STATUS_FAILURE"), ("KILLED", "STATUS_FAILURE")]
)
def test_params_and_status_appear_in_hparams(run: FakeRun, status: Status, shown: str) -> None:
    run.add(Params, {"lr": 0.1, "layers": 3, "amp": True, "optim/name": "Adam", "none": None, "seed": 2**60})
    run.add(RunEnded, status)
    deliver(run, status=status)
    assert read_hparams(run) == {
        "lr": 0.1,
        "layers": 3.0,
        "amp": True,
        "optim/name": "Adam",
        "seed": str(2**60),
    }
    assert read_status(run) == shown
    end = metadata.parse_session_end_info_plugin_data(read_plugin_data(run, metadata.SESSION_END_INFO_TAG))
    assert end.end_time_secs == run.events[-1].time


def test_params_without_number_do_not_change_kind_of_column(run: FakeRun) -> None:
    run.add(
        Params, {"lr": None, "clip": "inf", "decay": "nan", "min": "-inf", "on": False, "text": "", "list": "[1, 2]"}
    )
    deliver(run)
    assert read_hparams(run) == {"on": False, "text": "", "list": "[1, 2]"}


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 + 1, -(2**53) - 1, 2**63 - 1, 10**30])
def test_integer_param_is_exact_in_hparams(run: FakeRun, number: int) -> None:
    run.add(Params, {"seed": number})
    deliver(run)
    shown = read_hparams(run)["seed"]
    assert isinstance(shown, float) == (abs(number) <= 2**53)
    assert int(shown) == number


def test_only_missing_params_show_session(run: FakeRun) -> None:
    run.add(Params, {"lr": None})
    deliver(run, status="FINISHED")
    assert read_hparams(run) == {}
    assert read_status(run) == "STATUS_SUCCESS"


def test_running_run_has_no_status(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    deliver(run)
    assert read_status(run) is None


def test_changed_params_are_merged_at_run_end(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1, "layers": 3})
    run.add(Metrics, 1, {"a": 1.0})
    run.add(Params, {"lr": 0.2, "seed": 1})
    deliver(run, status="FINISHED")
    assert read_hparams(run) == {"lr": 0.2, "layers": 3, "seed": 1}
    assert read_scalars(run) == expected(run.history())
    assert read_status(run) == "STATUS_SUCCESS"


def test_repeated_params_create_no_new_file(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    run.add(Params, {"lr": 0.1})
    deliver(run, status="FINISHED")
    assert len(find_event_files(run)) == 1


def test_resumed_run_shows_final_status(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    run.add(Metrics, 1, {"a": 1.0})
    state = deliver(run, status="FAILED")
    assert read_status(run) == "STATUS_FAILURE"
    connection = connect(run, state)
    connection.write([run.add(RunStarted, run.id, run.name, 1, "host", True), run.add(Metrics, 2, {"a": 2.0})])
    assert read_status(run) is None
    connection.close("FINISHED")
    assert read_status(run) == "STATUS_SUCCESS"
    assert read_scalars(run) == expected(run.history())


def test_unsaved_end_status_is_replaced_on_resume(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    connection = connect(run)
    connection.write(run.events)
    state = connection.state()
    connection.close("FAILED")
    connection = connect(run, state)
    connection.write([run.add(RunStarted, run.id, run.name, 1, "host", True)])
    connection.close("FINISHED")
    assert read_status(run) == "STATUS_SUCCESS"


# -- Custom Scalars page -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "expected_subject"),
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
def test_subject_strips_train_and_validation_prefix(tag: str, expected_subject: str | None) -> None:
    assert get_subject(tag) == expected_subject


def test_train_and_validation_metrics_share_chart(run: FakeRun) -> None:
    run.add(Metrics, 1, {"train/loss": 1.0, "lr": 0.1, "train/a+b": 1.0})
    connection = connect(run)
    connection.write(run.events)
    assert read_charts(run) == {}
    connection.write([run.add(Metrics, 2, {"val/loss": 1.0, "val/a+b": 1.0, "val/only": 1.0})])
    connection.write([run.add(Metrics, 3, {"test/loss": 1.0})])
    assert read_charts(run) == {
        "loss": ["^test/loss$", "^train/loss$", "^val/loss$"],
        r"a+b": [r"^train/a\+b$", r"^val/a\+b$"],
    }


def test_superseded_chart_layout_is_rebuilt(run: FakeRun) -> None:
    run.add(Metrics, 1, {"train/loss": 1.0})
    run.add(Metrics, 2, {"val/loss": 1.0})
    connection = connect(run)
    connection.write(run.events)
    connection.write([run.add(Rewound, 1, 0, 1)])
    assert read_charts(run) == {}
    connection.write([run.add(Metrics, 2, {"val/loss": 1.0})])
    assert read_charts(run) == {"loss": ["^train/loss$", "^val/loss$"]}


# -- imports -----------------------------------------------------------------------------------------------------------


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


# -- order of steps ----------------------------------------------------------------------------------------------------


def read_steps(run: FakeRun, tag: str) -> list[tuple[int, str]]:
    return [(step, value) for step, value, _ in read_scalars(run)[tag]]


def test_steps_that_go_back_are_sorted_at_run_end(run: FakeRun) -> None:
    run.add(Params, {"lr": 0.1})
    for phase in (1, 2):
        for step in range(1, 6 - phase):
            run.add(Metrics, step, {"a": step + phase / 2, f"b{phase}": 1.0}, step / 4)
    state = deliver(run)
    assert [step for step, _ in read_steps(run, "a")] == [1, 2, 3, 4, 1, 2, 3]
    connect(run, state).close("FINISHED")
    expected_points = [(1, "1.5"), (1, "2.0"), (2, "2.5"), (2, "3.0"), (3, "3.5"), (3, "4.0"), (4, "4.5")]
    assert read_steps(run, "a") == expected_points
    assert read_status(run) == "STATUS_SUCCESS"


def test_steps_that_go_back_after_resume_are_sorted_again(run: FakeRun) -> None:
    for step in (1, 3, 2):
        run.add(Metrics, step, {"a": float(step)})
    state = deliver(run, status="FINISHED")
    more = [run.add(RunStarted, run.id, run.name, 1, "host", True), run.add(Metrics, 4, {"a": 4.0})]
    more += [run.add(Metrics, 0, {"a": 0.0})]
    connection = connect(run, state)
    connection.write(more)
    connection.close("FINISHED")
    assert [step for step, _ in read_steps(run, "a")] == [0, 1, 2, 3, 4]


def test_redelivery_and_rewind_of_sorted_file_keep_each_point_once(run: FakeRun) -> None:
    for step in (1, 3, 2):
        run.add(Metrics, step, {"a": float(step)})
    state = deliver(run, status="FINISHED")
    connection = connect(run, state)
    connection.write(run.events[1:])
    connection.write([run.add(Rewound, 2, 0, 3)])
    connection.write([run.add(Metrics, 2, {"a": 9.0})])
    connection.close("FINISHED")
    assert read_steps(run, "a") == [(1, "1.0"), (2, "9.0"), (3, "3.0")]


def test_lower_step_of_another_tag_creates_no_new_file(run: FakeRun) -> None:
    run.add(Metrics, 5, {"a": 1.0})
    run.add(Text, "note", 0, "text")
    run.add(Metrics, 3, {"b": 1.0})
    deliver(run, status="FINISHED")
    assert len(find_event_files(run)) == 1


def test_sync_of_delivered_run_leaves_event_file_unchanged(tmp_path: Path) -> None:
    with pte.Run(tmp_path / "run", params={"lr": 0.1}, sinks=["tensorboard"], close_timeout=60) as run:
        run.log_metrics({"loss": 1.0}, 1)
    assert sync(tmp_path / "run") == []
    (before,) = (tmp_path / "run").glob("events*")
    status, content = before.stat(), before.read_bytes()
    assert sync(tmp_path / "run") == []
    (after,) = (tmp_path / "run").glob("events*")
    assert (after.name, after.stat().st_ino, after.read_bytes()) == (before.name, status.st_ino, content)
