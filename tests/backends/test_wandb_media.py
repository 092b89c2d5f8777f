"""Tables, pages, sounds, and videos as values of Weights & Biases, compared with those of the client library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pte_backends.wandb import WandbSink
from pte_tracking._runs.sounds import encode_sound
from pte_tracking._runs.tables import encode_table
from pte_tracking._runs.videos import encode_gif
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun
from tests.backends.test_wandb import decode_rows, read_records

COLUMNS = {"word": ["a", "學習"], "count": [1, None]}
#: Fields of a value by which the page finds the artifact of a table. An artifact per table and step is not written.
ARTIFACT_FIELDS = {"artifact_path", "_latest_artifact_path"}
REFERENCE_SCRIPT = """
import numpy, wandb
settings = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, silent=True)
with wandb.init(project="p", id="reference", mode="offline", settings=settings) as run:
    run.log({"t": wandb.Table(columns=["word", "count"], data=[["a", 1], ["學習", None]])})
    run.log({"h": wandb.Html("<p>", inject=False)})
    run.log({"a": wandb.Audio("sound.wav", caption="a caption")})
    run.log({"v": wandb.Video("video.gif", caption="a caption")})
    run.log({"i": wandb.Image(numpy.zeros((4, 6, 3), dtype="uint8"), caption="a caption")})
"""


def write_media(directory: Path) -> None:
    (directory / "sound.wav").write_bytes(encode_sound(np.zeros(8), 8000, "sound").content)
    (directory / "video.gif").write_bytes(encode_gif(np.zeros((2, 4, 4, 3), np.uint8), 4))
    (directory / "page.html").write_text("<p>")
    (directory / "table.json").write_bytes(encode_table(COLUMNS, "table").json)
    (directory / "image.png").write_bytes(
        bytes.fromhex("89504e470d0a1a0a0000000d4948445200000006000000040802") + bytes(9)
    )


def read_values(directory: Path) -> dict[str, dict[str, Any]]:
    rows = decode_rows(read_records(directory))
    return {key: value for row in rows for key, value in row.items() if isinstance(value, dict)}


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedRun:
    recorded = RecordedRun(tmp_path / "run", WandbSink("p"))
    write_media(recorded.directory)
    recorded.journal.append(events.Table, "t", 1, "table.json")
    recorded.journal.append(events.Html, "h", 1, "page.html")
    recorded.journal.append(events.Audio, "a", 1, "sound.wav", "a caption", 8000)
    recorded.journal.append(events.Video, "v", 1, "video.gif", "a caption", 4.0)
    recorded.journal.append(events.Image, "i", 1, "image.png", "a caption")
    recorded.end()
    return recorded


def test_files_and_fields_of_values_match(recorded: RecordedRun) -> None:
    (files,) = recorded.directory.glob("wandb/*/files")
    values = read_values(recorded.directory)
    for key, name in {"h": "page.html", "a": "sound.wav", "v": "video.gif", "i": "image.png"}.items():
        assert (files / values[key]["path"]).read_bytes() == (recorded.directory / name).read_bytes()
    assert json.loads((files / values["t"]["path"]).read_text()) == {
        "columns": ["word", "count"],
        "data": [["a", 1], ["學習", None]],
    }
    assert (values["t"]["nrows"], values["t"]["ncols"]) == (2, 2)
    stored = {file.path for record in read_records(recorded.directory) for file in record.files.files}
    assert {value["path"] for value in values.values()} <= stored


@pytest.mark.slow
def test_values_have_same_fields_as_client_library(recorded: RecordedRun, tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    folder.mkdir()
    write_media(folder)
    env = {**os.environ, "WANDB_DIR": str(folder), "WANDB_CACHE_DIR": str(folder), "WANDB_CONFIG_DIR": str(folder)}
    env |= {"WANDB_DATA_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", REFERENCE_SCRIPT], cwd=folder, env=env, check=True, timeout=100)
    reference, written = read_values(folder), read_values(recorded.directory)
    assert reference.keys() == written.keys()
    for key, value in reference.items():
        assert written[key].keys() == value.keys() - ARTIFACT_FIELDS, key
        assert written[key]["_type"] == value["_type"]
        assert Path(written[key]["path"]).parent == Path(value["path"]).parent
        assert written[key]["path"].partition(".")[2] == value["path"].partition(".")[2]


def test_superseded_and_damaged_media_are_left_out(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink("p"))
    write_media(recorded.directory)
    (recorded.directory / "damaged.json").write_text("[")
    position = recorded.log(1, {"loss": 1.0})
    recorded.journal.append(events.Table, "superseded", 2, "table.json")
    recorded.deliver()
    recorded.journal.rewind(position, 1)
    recorded.journal.append(events.Table, "damaged", 2, "damaged.json")
    recorded.journal.append(events.Video, "missing", 2, "missing.gif")
    recorded.journal.append(events.Video, "v", 2, "video.gif")
    recorded.end()
    assert read_values(recorded.directory).keys() == {"v"}
    assert len(recorded.rejected_events) == 2
