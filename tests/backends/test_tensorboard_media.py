"""Tables, sounds, and videos in TensorBoard event files, read by TensorBoard's own reader."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.plugins.audio import metadata as audio_metadata

from pte_tracking._runs.sounds import encode_sound
from pte_tracking._runs.videos import encode_gif
from pte_tracking._store.events import Audio, Figure, Html, MediaFile, Metrics, Table, Video
from pte_tracking.sinks import RejectedEventError
from pte_tracking.testing._samples import make_sample_events
from tests.backends.event_files import FakeRun, connect, deliver, read


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return FakeRun(tmp_path)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of a library that TensorBoard contains
    from tensorboard import plugin_util


def add_table(run: FakeRun, columns: list[str], data: list[list[Any]], caption: str = "") -> str:
    """Deliver a table, and return its Markdown text."""
    (run.directory / "table.json").write_text(json.dumps({"columns": columns, "data": data}))
    run.add(Table, "table", 2, "table.json", caption)
    deliver(run)
    [event] = read(run).Tensors("table")
    assert event.step == 2
    text: str = event.tensor_proto.string_val[0].decode()
    return text


def test_sound_is_stored_unchanged(run: FakeRun) -> None:
    content = encode_sound(np.zeros((5, 2), np.float32), 8000, "sound").content
    (run.directory / "sound.wav").write_bytes(content)
    run.add(Audio, "sound", 3, "sound.wav", "a caption", 8000)
    deliver(run)
    accumulator = read(run)
    [event] = accumulator.Tensors("sound")
    assert (event.step, list(event.tensor_proto.string_val)) == (3, [content])
    stored = accumulator.SummaryMetadata("sound")
    assert (stored.summary_description, stored.plugin_data.plugin_name) == ("a caption", "audio")
    assert audio_metadata.parse_plugin_metadata(stored.plugin_data.content).encoding == audio_metadata.Encoding.WAV


def test_video_is_stored_unchanged(run: FakeRun) -> None:
    content = encode_gif(np.zeros((2, 5, 7, 3), np.uint8), 4)
    (run.directory / "video.gif").write_bytes(content)
    run.add(Video, "video", 3, "video.gif")
    deliver(run)
    [event] = read(run).Images("video")
    assert (event.step, event.width, event.height, event.encoded_image_string) == (3, 7, 5, content)


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (Audio, "sound.mp3", b"ID3 rest", r"plays WAV files only, got sound\.mp3"),
        (Video, "video.mp4", b"\0\0\0\x18ftypmp42", r"plays GIF files only, got video\.mp4"),
        (Video, "video.gif", b"GIF89a", "plays GIF files only"),
        (Table, "table.json", b'{"columns": ["a"], "data": [[1, 2]]}', "a row does not have 1 cells"),
        (Table, "table.json", b"[" * 10_000, "is not the file of a table"),
        (Table, "table.json", b'{"columns": [1], "data": []}', "is not the file of a table"),
        (Table, "missing.json", None, "does not exist in the run directory"),
    ],
)
def test_unusable_file_raises_rejected_event_error(
    run: FakeRun, kind: type[MediaFile], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (run.directory / name).write_bytes(content)
    run.add(kind, "key", 1, name)
    with pytest.raises(RejectedEventError, match=message):
        connect(run).write(run.events)


def test_table_is_markdown_with_caption(run: FakeRun) -> None:
    text = add_table(run, ["a|b", "c"], [[1, "x\ny"], [None, {"k": [1.5]}]], "the *caption*")
    assert text == 'the *caption*\n\n| a\\|b | c |\n| --- | --- |\n| 1 | x y |\n|  | {"k":[1.5]} |'


def test_page_of_table_has_its_cells(run: FakeRun) -> None:
    cells = [["<script>alert(1)</script>", "a|b", "c\\|d", "學習", "_x_"]]
    text = add_table(run, list("abcde"), cells)
    page = plugin_util.markdown_to_safe_html(text)
    assert page.count("<td>") == 5
    assert "<script" not in page
    assert "<td>a|b</td>" in page


def test_large_table_shows_first_rows_and_columns(run: FakeRun) -> None:
    text = add_table(run, [f"c{index}" for index in range(40)], [[index] * 40 for index in range(2000)])
    lines = text.splitlines()
    assert (len(lines), lines[-1]) == (104, "100 of 2,000 rows and 30 of 40 columns are shown.")
    assert lines[2].count("|") == 31


def test_long_cell_is_shortened(run: FakeRun) -> None:
    assert f"| {'x' * 200}… |" in add_table(run, ["a"], [["x" * 300]])


def test_empty_table_says_so(run: FakeRun) -> None:
    assert add_table(run, [], []).strip() == "The table is empty."


def test_page_is_skipped(run: FakeRun) -> None:
    run.add(Html, "page", 1, "page.html")
    run.add(Metrics, 1, {"a": 1.0})
    deliver(run)
    assert read(run).Tags()["tensors"] == []


def test_caption_of_figure_is_description_of_tag(run: FakeRun) -> None:
    make_sample_events(run.directory)
    run.add(Figure, "figure", 1, "picture.png", "a caption")
    deliver(run)
    assert read(run).SummaryMetadata("figure").summary_description == "a caption"
