"""Captions, nested cells, and formats that Aim, ClearML, SwanLab, and Trackio play or keep as artifacts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from swanlab.proto.swanlab.metric.column.v1 import column_pb2
from trackio.utils import MEDIA_DIR

from pte_backends.aim import AimSink
from pte_backends.clearml import ClearMLSink
from pte_backends.swanlab import SwanLabSink
from pte_tracking._runs.tables import encode_table
from pte_tracking._store import events
from pte_tracking.sinks import Sink
from pte_tracking.testing import RecordedRun
from pte_tracking.testing._samples import make_sample_events
from tests.backends import swanlab_files, trackio_store
from tests.backends.aim_runs import CONTEXT, read_run
from tests.backends.clearml_sessions import read_key, read_reports

CELLS = {"word": ["a", "學習"], "nested": [{"_type": "trackio.image", "file_path": "../x"}, [1]], "p": [None, 0.5]}


def record(directory: Path, sink: Sink) -> RecordedRun:
    """Return a run with sounds and videos of two formats each, pictures with captions, and a table."""
    run = RecordedRun(directory, sink)
    make_sample_events(directory)
    (directory / "table.json").write_bytes(encode_table(CELLS, "table").json)
    (directory / "sound.ogg").write_bytes(b"OggS rest")
    (directory / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    run.journal.append(events.Image, "image", 1, "picture.png", "a picture")
    run.journal.append(events.Table, "table", 1, "table.json")
    run.journal.append(events.Audio, "wav", 1, "sound.wav", "a sound")
    run.journal.append(events.Audio, "ogg", 1, "sound.ogg")
    run.journal.append(events.Video, "gif", 1, "clip.gif", "a clip")
    run.journal.append(events.Video, "mp4", 1, "clip.mp4")
    run.end()
    assert not run.rejected_events
    return run


def test_aim_plays_sounds_with_captions_and_keeps_other_formats(aim_repository: str, tmp_path: Path) -> None:
    record(tmp_path / "run", AimSink(aim_repository))
    stored = read_run(aim_repository, tmp_path / "run")
    sound = stored.get_audio_sequence("wav", CONTEXT).values.last_value()
    assert (sound.storage["caption"], sound.storage["format"]) == ("a sound", "wav")
    assert sound.get().read() == (tmp_path / "run/sound.wav").read_bytes()
    assert stored.get_image_sequence("image", CONTEXT).values.last_value().caption == "a picture"
    assert {"sound.ogg", "clip.gif", "clip.mp4", "table.json"} == set(stored.artifacts)


def test_aim_rewind_removes_sounds(aim_repository: str, tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", AimSink(aim_repository))
    make_sample_events(run.directory)
    run.journal.append(events.Audio, "sound", 1, "sound.wav")
    position = run.log(1, {"a": 1.0})
    run.journal.append(events.Audio, "sound", 2, "sound.wav")
    run.deliver()
    run.journal.rewind(position, 1)
    run.log(2, {"a": 2.0})
    run.end()
    steps, _ = read_run(aim_repository, run.directory).get_audio_sequence("sound", CONTEXT).data.items_list()
    assert steps == [1]


def test_swanlab_plays_wav_and_gif_and_keeps_other_formats(tmp_path: Path) -> None:
    record(tmp_path / "run", SwanLabSink())
    records = swanlab_files.read_records(tmp_path / "run")
    media = {item.media.key: item.media for item in records if item.HasField("media")}
    assert {key: (value.type, value.value.items[0].caption) for key, value in media.items()} == {
        "image": (column_pb2.COLUMN_TYPE_IMAGE, "a picture"),
        "wav": (column_pb2.COLUMN_TYPE_AUDIO, "a sound"),
        "gif": (column_pb2.COLUMN_TYPE_IMAGE, "a clip"),
    }
    assert media["gif"].value.items[0].payload == (tmp_path / "run/clip.gif").read_bytes()
    saved = {item.save.name for item in records}
    assert {"artifacts/sound.ogg", "artifacts/clip.mp4", "artifacts/table.json"} <= saved


def test_trackio_shows_all_formats_with_captions(tmp_path: Path) -> None:
    sink = trackio_store.new_sink()
    record(tmp_path / "run", sink)
    values = {key: value for row in trackio_store.read_rows(sink, tmp_path / "run") for key, value in row.items()}
    for key, name, caption in [
        ("image", "picture.png", "a picture"),
        ("wav", "sound.wav", "a sound"),
        ("ogg", "sound.ogg", None),
        ("gif", "clip.gif", "a clip"),
        ("mp4", "clip.mp4", None),
    ]:
        assert values[key]["caption"] == caption
        assert (MEDIA_DIR / values[key]["file_path"]).read_bytes() == (tmp_path / "run" / name).read_bytes()
    rows = values["table"]["_value"]
    assert [row["word"] for row in rows] == ["a", "學習"]
    assert json.loads(rows[0]["nested"]) == {"_type": "trackio.image", "file_path": "../x"}


# Raised when the client library reads its configuration with pyparsing 3.3.
@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.slow  # It imports the client library.
def test_clearml_reports_all_formats(tmp_path: Path) -> None:
    record(tmp_path / "run", ClearMLSink())
    reports = {read_key(report): report for report in read_reports(tmp_path / "run")}
    for key, name in [("wav", "sound.wav"), ("ogg", "sound.ogg"), ("gif", "clip.gif"), ("mp4", "clip.mp4")]:
        assert Path(reports[key].url).read_bytes() == (tmp_path / "run" / name).read_bytes()
        assert reports[key].url.endswith(Path(name).suffix)
    table = json.loads(reports["table"].plot_str)["data"][0]
    assert table["header"]["values"] == ["word", "nested", "p"]
    assert table["cells"]["values"][0] == ["a", "學習"]
