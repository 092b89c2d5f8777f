"""Tables, pages, sounds, and videos are stored as files that the standard readers of each format read."""

from __future__ import annotations

import datetime
import fnmatch
import io
import json
import logging
import math
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects
import polars
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

import pte_tracking as pte
from pte_tracking._runs.sounds import encode_sound
from pte_tracking._runs.tables import encode_table
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read_effective

RAMP = np.linspace(-1, 1, 5)


def log(directory: Path, method: str, *args: Any, **options: Any) -> tuple[Any, bytes]:
    """Return the event and the file of a call."""
    with pte.Run(directory) as run:
        getattr(run, method)("a/b", *args, 3, **options)
    (event,) = (
        event for event, _ in read_effective(directory / "journal.jsonl") if isinstance(event, events.MediaFile)
    )
    return event, (directory / event.path).read_bytes()


def table(value: Any) -> Any:
    return json.loads(encode_table(value, "table").json)


def read_wav(content: bytes) -> tuple[int, int, list[int]]:
    with wave.open(io.BytesIO(content)) as file:
        assert file.getsampwidth() == 2
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getframerate(), file.getnchannels(), samples.tolist()


def read_gif(content: bytes) -> tuple[list[int], list[Any]]:
    """Return the durations and the pixels of the frames."""
    with Image.open(io.BytesIO(content)) as image:
        frames = [
            (frame.info.get("duration", 0), np.asarray(frame.convert("RGB"))) for frame in ImageSequence.Iterator(image)
        ]
    return [duration for duration, _ in frames], [pixels for _, pixels in frames]


# -- tables --------------------------------------------------------------------------------------------------------

COLUMNS = {"word": ["a", "ß"], "count": [1, 2]}
EXPECTED = {"columns": ["word", "count"], "data": [["a", 1], ["ß", 2]]}


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame(COLUMNS, index=[7, 8]),
        polars.DataFrame(COLUMNS),
        pyarrow.table(COLUMNS),
        COLUMNS,
        {"word": np.array(["a", "ß"]), "count": torch.tensor([1, 2])},
        {"word": pd.Series(["a", "ß"]), "count": polars.Series([1, 2])},
        [{"word": "a", "count": 1}, {"word": "ß", "count": 2}],
    ],
    ids=["pandas", "polars", "pyarrow", "columns", "arrays", "series", "rows"],
)
def test_table_of_each_type_is_stored_as_columns_and_rows(value: Any) -> None:
    assert table(value) == EXPECTED


def test_log_table_records_key_step_and_caption(tmp_path: Path) -> None:
    event, content = log(tmp_path, "log_table", COLUMNS, caption="the words")
    assert (type(event), event.key, event.step, event.caption) == (events.Table, "a/b", 3, "the words")
    assert fnmatch.fnmatch(event.path, "media/table/a_b-*/step_3.json")
    assert json.loads(content) == EXPECTED


@pytest.mark.parametrize("empty", [{}, [], pd.DataFrame(), polars.DataFrame(), pyarrow.table({})])
def test_empty_table_is_stored(empty: Any) -> None:
    assert table(empty) == {"columns": [], "data": []}


def test_table_rows_with_missing_keys_have_nulls() -> None:
    assert table([{"a": 1}, {"b": 2}]) == {"columns": ["a", "b"], "data": [[1, None], [None, 2]]}


def test_table_odd_cells_become_plain_json() -> None:
    cells = {
        "floats": ([math.nan, math.inf, -math.inf, np.float32(0.5)], [None, "Infinity", "-Infinity", 0.5]),
        "integers": ([2**63 - 1, 2**63, -(10**30), np.int64(3)], [2**63 - 1, str(2**63), str(-(10**30)), 3]),
        "missing": ([None, pd.NaT, pd.NA, np.datetime64("NaT")], [None] * 4),
        "times": (
            [datetime.date(2026, 1, 2), pd.Timestamp("2026-01-02"), np.datetime64("2026-01-02"), datetime.time(1)],
            ["2026-01-02", "2026-01-02T00:00:00", "2026-01-02", "01:00:00"],
        ),
        "nested": (
            [{"a": [1, (2.0, math.nan)], 3: {4}}, np.eye(2), torch.ones(2), True],
            [{"a": [1, [2.0, None]], "3": [4]}, [[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], True],
        ),
        "texts": (
            ["\ud800", "學習", b"bytes", "https://user:hunter2@host"],
            ["\\ud800", "學習", "b'bytes'", "https://***@host"],
        ),
    }
    stored = table({name: given for name, (given, _) in cells.items()})
    assert list(zip(*stored["data"], strict=True)) == [tuple(expected) for _, expected in cells.values()]


def test_table_that_contains_itself_is_stored() -> None:
    cell: list[Any] = []
    cell.append(cell)
    assert "[...]" in str(table({"a": [cell]}))


cells = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.dictionaries(st.text(), cells, max_size=4), max_size=5))
def test_generated_table_is_read_by_pandas_and_keeps_plain_cells(rows: list[dict[str, Any]]) -> None:
    encoded = encode_table(rows, "table").json
    stored = json.loads(encoded)
    assert len(stored["data"]) == len(rows)
    assert all(len(row) == len(stored["columns"]) for row in stored["data"])
    if len(set(stored["columns"])) == len(stored["columns"]):
        pd.read_json(io.BytesIO(encoded), orient="split")
    for row, cells_of_row in zip(rows, stored["data"], strict=True):
        for index, value in enumerate(row.get(name) for name in dict.fromkeys(name for one in rows for name in one)):
            if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
                assert cells_of_row[index] == value


@pytest.mark.parametrize("value", [pd.DataFrame({"a": range(10_002)}), {"a": list(range(10_002))}, [{"a": 0}] * 10_002])
def test_large_table_keeps_first_rows_and_warns_once(
    tmp_path: Path, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pte.Run(tmp_path) as run:
        run.log_table("a", value, 1)
        run.log_table("a", value, 2)
    (message,) = (message for message in caplog.messages if "rows" in message)
    assert message.startswith("table 'a' at step 1: only the first 10,000 of 10,002 rows are stored. Log a file")
    assert len(json.loads((tmp_path / "media/table/a/step_2.json").read_text())["data"]) == 10_000


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("text", "got 'text' of type str"),
        ([[1, 2]], "list of dicts, or a dict of columns, got list of list"),
        (polars.LazyFrame(COLUMNS), r"Call collect\(\) first"),
        ({"a": 1}, "list or array of cells for the column 'a', got 1"),
        ({"a": "text"}, "for the column 'a', got 'text'"),
        ({"a": torch.tensor(1)}, "for the column 'a'"),
    ],
)
def test_log_table_wrong_type_is_explained(tmp_path: Path, value: Any, message: str) -> None:
    with pte.Run(tmp_path) as run, pytest.raises(TypeError, match=message):
        run.log_table("a", value, 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1], "b": [1, 2]}, r"columns of one length, got the lengths \{'a': 1, 'b': 2\}"),
        ({"a": [np.zeros((40, 40))]}, "an array of 1,600 elements, at most 1,000 are allowed. Log pictures"),
    ],
)
def test_log_table_wrong_value_is_explained(tmp_path: Path, value: Any, message: str) -> None:
    with pte.Run(tmp_path) as run, pytest.raises(ValueError, match=message):
        run.log_table("a", value, 1)


# -- pages ---------------------------------------------------------------------------------------------------------


def test_log_html_stores_text_without_changes(tmp_path: Path) -> None:
    event, content = log(tmp_path, "log_html", "<p>學習 token=abc</p>", caption="a page")
    assert (type(event), event.caption, content.decode()) == (events.Html, "a page", "<p>學習 token=abc</p>")


def test_log_html_plotly_figure_is_small_page(tmp_path: Path) -> None:
    _, content = log(tmp_path, "log_html", plotly.graph_objects.Figure(plotly.graph_objects.Scatter(y=[1, 2])))
    assert b"Plotly.newPlot" in content
    assert b"https://cdn" in content
    assert len(content) < 20_000


def test_log_html_data_frame_is_page(tmp_path: Path) -> None:
    assert b"<table" in log(tmp_path, "log_html", pd.DataFrame(COLUMNS))[1]


@pytest.mark.parametrize("value", [b"<p>", 1, None])
def test_log_html_wrong_type_is_explained(tmp_path: Path, value: Any) -> None:
    with pte.Run(tmp_path) as run, pytest.raises(TypeError, match="html: expected a string, a plotly figure"):
        run.log_html("a", value, 1)


def test_log_figure_of_plotly_names_log_html(tmp_path: Path) -> None:
    with (
        pte.Run(tmp_path) as run,
        pytest.raises(TypeError, match=r"got Figure. Log a figure of plotly with log_html\(\)"),
    ):
        run.log_figure("a", plotly.graph_objects.Figure(), 1)


# -- sounds --------------------------------------------------------------------------------------------------------

SAMPLES = [-32767, -16384, 0, 16384, 32767]


@pytest.mark.parametrize(
    ("value", "channels", "expected"),
    [
        (RAMP, 1, SAMPLES),
        (torch.tensor(RAMP).bfloat16(), 1, SAMPLES),
        (torch.tensor(RAMP, requires_grad=True), 1, SAMPLES),
        (np.stack([RAMP, -RAMP], 1), 2, [-32767, 32767, -16384, 16384, 0, 0, 16384, -16384, 32767, -32767]),
        (torch.tensor(np.stack([RAMP, RAMP])), 2, [sample for sample in SAMPLES for _ in range(2)]),
        (np.array([-(2**15), 2**15 - 1], np.int16), 1, [-(2**15), 2**15 - 1]),
        (np.array([-(2**31), 2**31 - 1], np.int32), 1, [-(2**15), 2**15 - 1]),
        (np.array([0, 128, 255], np.uint8), 1, [-(2**15), 0, 127 * 256]),
        (np.zeros(0), 1, []),
    ],
)
def test_sound_array_is_wav_of_16_bits(tmp_path: Path, value: Any, channels: int, expected: list[int]) -> None:
    event, content = log(tmp_path, "log_audio", value, sample_rate=8000)
    assert read_wav(content) == (8000, channels, expected)
    assert (type(event), event.sample_rate, Path(event.path).name) == (events.Audio, 8000, "step_3.wav")


@settings(max_examples=50, deadline=None, database=None)
@given(st.lists(st.floats(width=32), max_size=20), st.integers(1, 192_000))
def test_generated_sound_is_clipped_and_readable(values: list[float], rate: int) -> None:
    encoded = encode_sound(np.array(values, np.float32), rate, "sound")
    stored_rate, _, samples = read_wav(encoded.content)
    expected = [round(min(max(value, -1), 1) * 32767) if math.isfinite(value) else 0 for value in values]
    assert stored_rate == rate
    assert np.abs(np.subtract(samples, expected)).max(initial=0) <= 1
    assert (encoded.note is None) == all(abs(value) <= 1 for value in values)


def test_clipped_sound_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pte.Run(tmp_path) as run:
        for step in (1, 2):
            run.log_audio("a", torch.tensor([0.5, -3.0, math.nan]), step, sample_rate=8000)
    (message,) = (message for message in caplog.messages if "clipped" in message)
    assert message.startswith(
        "audio 'a' at step 1: values up to 3 (1 of 3) were clipped to -1 and 1, and values that are not finite (1 of 3)"
    )


def encode_wav(rate: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(b"\0\0")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "suffix", "rate"),
    [
        (encode_wav(12345), "wav", 12345),
        (b"RIFF\0\0\0\0WAVEfmt ", "wav", None),
        (b"fLaC rest", "flac", None),
        (b"OggS rest", "ogg", None),
        (b"ID3 rest", "mp3", None),
        (b"\xff\xfb rest", "mp3", None),
    ],
)
@pytest.mark.parametrize("is_path", [False, True])
def test_sound_file_is_stored_without_changes(
    tmp_path: Path, content: bytes, suffix: str, rate: int | None, is_path: bool
) -> None:
    source = tmp_path / "sound"
    source.write_bytes(content)
    event, stored = log(tmp_path / "run", "log_audio", source if is_path else content)
    assert (stored, Path(event.path).name, event.sample_rate) == (content, f"step_3.{suffix}", rate)


@pytest.mark.parametrize(
    ("value", "options", "error", "message"),
    [
        (RAMP, {}, ValueError, "sample_rate: expected the samples per second of an array or tensor"),
        (RAMP, {"sample_rate": 0}, ValueError, "sample_rate: expected a number of samples per second from 1"),
        (RAMP, {"sample_rate": 8000.0}, TypeError, "sample_rate: expected an integer, got 8000.0"),
        (RAMP, {"sample_rate": 8000, "caption": 1}, TypeError, "caption: expected a string, got 1"),
        (np.zeros((2, 100)), {"sample_rate": 8000}, ValueError, r"Move the channels: pass sound.T"),
        (torch.zeros(100, 2), {"sample_rate": 8000}, ValueError, r"tensor with 1 to 16 channels, got \(100, 2\). Move"),
        (np.zeros((1, 1, 1)), {"sample_rate": 8000}, ValueError, r"expected shape \(samples\[, channels\]\)"),
        (np.array(["a"]), {"sample_rate": 8000}, TypeError, "expected real numbers, got ndarray of <U1"),
        (np.zeros(3, np.int64), {"sample_rate": 8000}, TypeError, "floats from -1 to 1, or uint8, int16, or int32"),
        (b"text", {}, ValueError, "expected a WAV, MP3, FLAC, or Ogg file, got 4 bytes that begin with b'text'"),
        ("missing.wav", {}, FileNotFoundError, "audio 'a' at step 1: the file '.*missing.wav' does not exist"),
        (".", {}, ValueError, "expected a file, got '.*', which is a directory"),
    ],
)
def test_log_audio_bad_input_is_explained(
    tmp_path: Path, value: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pte.Run(tmp_path) as run, pytest.raises(error, match=message):
        run.log_audio("a", value, 1, **options)


# -- videos --------------------------------------------------------------------------------------------------------

FRAMES = np.zeros((3, 4, 5, 3), np.uint8)
FRAMES[1, ..., 0], FRAMES[2, ..., 1] = 255, 255


@pytest.mark.parametrize(
    "value",
    [
        FRAMES,
        FRAMES / 255,
        torch.tensor(FRAMES).permute(0, 3, 1, 2),
        torch.tensor(FRAMES).permute(0, 3, 1, 2).float() / 255,
        np.concatenate([FRAMES, np.full((3, 4, 5, 1), 255, np.uint8)], 3),
    ],
)
def test_video_array_is_animated_gif(tmp_path: Path, value: Any) -> None:
    event, content = log(tmp_path, "log_video", value, fps=10, caption="a video")
    durations, frames = read_gif(content)
    assert durations == [100, 100, 100]
    assert np.array_equal(frames, FRAMES)
    assert (type(event), event.fps, event.caption, Path(event.path).name) == (
        events.Video,
        10.0,
        "a video",
        "step_3.gif",
    )


@pytest.mark.parametrize("value", [np.array([[[0, 255]]], np.uint8), torch.tensor([[[0.0, 1.0]]])])
def test_gray_video_of_one_frame_is_gif(tmp_path: Path, value: Any) -> None:
    _, (pixels,) = read_gif(log(tmp_path, "log_video", value)[1])
    assert pixels.tolist() == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("fps", [1e-3, 5e-324])
def test_slow_video_is_shown_at_one_frame_in_11_minutes(tmp_path: Path, fps: float) -> None:
    assert read_gif(log(tmp_path, "log_video", FRAMES, fps=fps)[1])[0] == [655_350] * 3


def test_fast_video_is_shown_at_50_frames_per_second(tmp_path: Path) -> None:
    assert read_gif(log(tmp_path, "log_video", FRAMES, fps=200)[1])[0] == [20, 20, 20]


@pytest.mark.parametrize(
    ("content", "suffix"),
    [(b"GIF89a rest", "gif"), (b"\0\0\0\x18ftypmp42", "mp4"), (b"\x1a\x45\xdf\xa3 rest", "webm")],
)
@pytest.mark.parametrize("is_path", [False, True])
def test_video_file_is_stored_without_changes(tmp_path: Path, content: bytes, suffix: str, is_path: bool) -> None:
    source = tmp_path / "video"
    source.write_bytes(content)
    event, stored = log(tmp_path / "run", "log_video", str(source) if is_path else content)
    assert (stored, Path(event.path).name, event.fps) == (content, f"step_3.{suffix}", None)


@pytest.mark.parametrize(
    ("value", "options", "error", "message"),
    [
        (FRAMES, {"fps": 0}, ValueError, "fps: expected a positive number of frames per second, got 0"),
        (FRAMES, {"fps": math.nan}, ValueError, "fps: expected a positive number"),
        (FRAMES, {"fps": "4"}, TypeError, "fps: expected a number, got '4' of type str"),
        (FRAMES[0, 0], {}, ValueError, r"expected shape \(frames, height, width\[, channels\]\) of an array"),
        (FRAMES.transpose(0, 3, 1, 2), {}, ValueError, r"Move the channels: video.transpose\(0, 2, 3, 1\)"),
        (torch.tensor(FRAMES)[:, :2], {}, ValueError, r"Move the channels: video.permute\(0, 3, 1, 2\)"),
        (
            np.zeros((2, 1, 70_000)),
            {},
            ValueError,
            "expected at most 65,535 pixels in width and height, got 70,000 x 1",
        ),
        (FRAMES[None], {}, ValueError, "Log each video of a batch with a key of its own"),
        (FRAMES[:0], {}, ValueError, "at least one frame with one pixel"),
        (np.array([[["a"]]]), {}, TypeError, "expected real numbers"),
        (b"text", {}, ValueError, "expected a GIF, MP4, or WebM file, got 4 bytes"),
        ("missing.mp4", {}, FileNotFoundError, "video 'a' at step 1: the file '.*missing.mp4' does not exist"),
    ],
)
def test_log_video_bad_input_is_explained(
    tmp_path: Path, value: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pte.Run(tmp_path) as run, pytest.raises(error, match=message):
        run.log_video("a", value, 1, **options)


def test_log_video_without_pillow_names_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with (
        pte.Run(tmp_path) as run,
        pytest.raises(
            ImportError, match=r"A video as an array or tensor requires Pillow.*pip install 'pte-tracking\[plot\]'"
        ),
    ):
        run.log_video("a", FRAMES, 1)


# -- all kinds -----------------------------------------------------------------------------------------------------


def test_captions_of_pictures_are_recorded_and_masked(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_image("a", np.zeros((2, 2), np.uint8), 1, caption="see https://user:hunter2@host")
        run.log_image("b", np.zeros((2, 2), np.uint8), 1)
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    images = [json.loads(line) for line in lines if '"kind":"image"' in line]
    assert [image.get("caption") for image in images] == ["see https://***@host", None]


def test_files_of_files_that_cannot_be_written_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"a": 1}, 1)
        (tmp_path / "media").write_text("in the way")
        run.log_table("a", COLUMNS)
    assert "was not saved" in caplog.text
    assert not any(isinstance(event, events.Table) for event, _ in read_effective(tmp_path / "journal.jsonl"))


def test_media_logged_before_resume_are_repeated_after_rewind(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
        for step in (1, 2):
            run.log_table("t", {"step": [step]}, step)
            run.log_video("v", FRAMES, step)
    with pte.Run(tmp_path, resume=True) as run:
        run.resume_at(1)
        run.log_table("t", {"step": [10]}, 1)
        run.log_table("t", {"step": [20]}, 2)
    kept = [event for event, _ in read_effective(tmp_path / "journal.jsonl") if isinstance(event, events.MediaFile)]
    assert [(event.key, event.step) for event in kept] == [("t", 1), ("v", 1), ("t", 2)]
    assert json.loads((tmp_path / kept[2].path).read_text())["data"] == [[20]]


def test_new_run_archives_media(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_table("t", COLUMNS, 1)
        first = run.id
    with pte.Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
    assert not (tmp_path / "media").exists()
    assert (tmp_path / "previous" / first / "media/table/t/step_1.json").exists()


def test_media_steps_default_to_last_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with pte.Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 7)
        run.log_html("page", "<p>")
    assert (tmp_path / "media/html/page/step_7.html").exists()
