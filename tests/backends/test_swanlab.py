"""SwanLab files in offline mode, read back record by record."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.proto.swanlab.run.v1 import run_pb2
from swanlab.sdk.internal.core_python.store import DataStoreWriter

from pte_backends._record_log import frame
from pte_backends.swanlab import SwanLabSink
from pte_backends.swanlab._connection import _FILE_HEADER
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import JOURNAL
from pte_tracking.testing import RecordedRun
from pte_tracking.testing._samples import make_sample_events
from tests.backends.killed_training import train, train_and_kill
from tests.backends.simultaneous import deliver_at_once, expected_points
from tests.backends.swanlab_files import read_config, read_file, read_points, read_records, run_directory
from tests.backends.swanlab_server import swanlab_server, sync
from tests.cli.invocation import invoke
from tests.probe.fixtures import wait_until

#: Logs the sample events with the client library.
REFERENCE_SCRIPT = """
import sys, swanlab
from pyecharts.charts import Bar
run = swanlab.init(
    mode="offline", project="project", name="contract", id="reference", log_dir="log", config={"lr": 0.1}
)
run.log({"a": 0.5}, step=1)
run.log({"image": swanlab.Image(sys.argv[1])}, step=1)
run.log({"note": swanlab.Text("some *text*")}, step=1)
run.log({"weights": Bar().add_xaxis(["0.5", "1.5"]).add_yaxis("weights", [3.0, 1.0])}, step=1)
run.save(sys.argv[2], base_path=".", policy="now")
run.finish()
"""


@pytest.mark.parametrize("position", [7, 32_700, 32_760, 32_761, 32_762, 32_763])
def test_frame_matches_client_library_byte_for_byte(tmp_path: Path, position: int) -> None:
    generator = random.Random(position)
    records = [generator.randbytes(max(position - 14, 0)), b"x", *map(generator.randbytes, (0, 40, 32_761, 100_000, 3))]
    writer = DataStoreWriter()
    writer.open(tmp_path / "file")
    framed = _FILE_HEADER
    for record in records:
        writer.write(record)
        framed += frame(record, len(framed))
    writer.close()
    assert framed == (tmp_path / "file").read_bytes()


def _fields(message: Message) -> set[str]:
    """Return the names of all fields that a message contains."""
    names = set()
    for field, value in message.ListFields():
        names.add(field.name)
        for inner in [value] if isinstance(value, Message) else value if isinstance(value, Sequence) else []:
            if isinstance(inner, Message):
                names |= {f"{field.name}.{name}" for name in _fields(inner)}
    return names


@pytest.mark.slow
def test_records_have_same_fields_as_client_library(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", SwanLabSink("project"))
    run.log(1, {"a": 0.5})
    for kind, fields in make_sample_events(run.directory):
        run.journal.append(kind, *fields)
    run.end()
    files = [str(run.directory / name) for name in ("picture.png", "file.txt")]
    subprocess.run([sys.executable, "-c", REFERENCE_SCRIPT, *files], cwd=tmp_path, check=True, timeout=100)
    (path,) = tmp_path.glob("log/run-*/run-*.swanlab")

    def index(records: Iterator[Record]) -> dict[str, Record]:
        found = {}
        for record in records:
            message = getattr(record, record.WhichOneof("record_type"))
            name = getattr(message, "key", "") or getattr(message, "name", "")
            found[f"{type(message).__name__} {Path(name).name}"] = record
        return found

    written, reference = index(iter(read_records(run.directory))), index(read_file(path))
    #: Records with a file contain it, so that the run is one file.
    own = {"media.value.items.payload", "save.payload", "save.source_path", "save.target_path", "start.resume"}
    compared = {name for name in written if name in reference}
    kinds = {"StartRecord", "ScalarRecord", "MediaRecord", "SaveRecord", "FinishRecord"}
    assert {name.split()[0] for name in compared} == kinds
    for name in compared:
        assert _fields(written[name]) ^ _fields(reference[name]) <= own | {"start.color"}, name
        assert written[name].num * reference[name].num > 0  # The same kind of number.


def test_run_has_times_config_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_PROJ_NAME", "digits")
    monkeypatch.setenv("SWANLAB_WORKSPACE", "team")
    run = RecordedRun(tmp_path / "run", SwanLabSink().resolve())
    (run.directory / "file.txt").touch()
    run.journal.append(events.Params, {"lr": 0.1, "name": "ü"})
    run.deliver()
    run.crash()
    run.journal.append(events.Params, {"lr": 0.2})
    run.journal.append(events.Dataset, "digits", "abc", "train", "sklearn")
    run.journal.append(events.Artifact, "file.txt", "folder")
    run.log(1, {"loss": 0.5})
    run.end()
    records = read_records(run.directory)
    assert (records[0].start.id, records[0].start.project, records[0].start.workspace) == (
        run.manifest.id,
        "digits",
        "team",
    )
    digits = {"digest": "abc", "source": "sklearn"}
    assert read_config(run.directory) == {"lr": 0.2, "name": "ü", "datasets/train/digits": digits}
    (row,) = (event for event, _ in read_effective(run.directory / JOURNAL) if isinstance(event, events.Metrics))
    (scalar,) = (record.scalar for record in records if record.HasField("scalar"))
    assert scalar.timestamp.ToNanoseconds() / 1e9 == pytest.approx(row.time, abs=1e-5)
    (source,) = (record.save.source_path for record in records if record.save.name == "artifacts/folder/file.txt")
    assert source == str(run.directory / "file.txt")
    assert [record.num for record in records if record.num > 0] == [1, 2]


def test_rewind_restores_config_and_removes_media(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", SwanLabSink("project"))
    run.journal.append(events.Params, {"lr": 0.1})
    mark = run.log(1, {"loss": 0.5})
    run.journal.append(events.Params, {"lr": 0.2})
    run.journal.append(events.Text, "note", 2, "superseded")
    run.deliver()
    run.journal.rewind(mark, 1)
    run.journal.append(events.Params, {"momentum": 0.9})
    run.end()
    assert read_config(run.directory) == {"lr": 0.1, "momentum": 0.9}
    assert not any(record.HasField("media") for record in read_records(run.directory))


@pytest.mark.parametrize("step", [-1, 2**48 + 1])
def test_step_outside_of_range_is_rejected(tmp_path: Path, step: int) -> None:
    run = RecordedRun(tmp_path / "run", SwanLabSink("project"))
    run.log(step, {"loss": 9.0})
    run.log(1, {"loss": 0.5})
    run.end()
    assert read_points(run.directory) == {"loss": [(1, 0.5)]}
    assert [*run.rejected_events.values()] == [f"SwanLab accepts steps from 0 to {2**48}, got {step}."]


def test_truncated_file_is_rebuilt(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", SwanLabSink("project"))
    for step in range(1, 50):
        run.log(step, {"loss": step / 7})
    run.deliver()
    (path,) = run_directory(run.directory).glob("run-*.swanlab")
    path.write_bytes(path.read_bytes()[:100])
    run.crash()
    run.log(50, {"loss": 50 / 7})
    run.end()
    assert read_points(run.directory) == {"loss": [(step, step / 7) for step in range(1, 51)]}


def test_changed_options_rewrite_header_and_keep_status(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", SwanLabSink("before"))
    run.log(1, {"loss": 0.5})
    run.end()
    result = invoke("sync", run.directory, "--to", "swanlab", "--option", "project=after")
    assert result.exit_code == 0, result.output
    records = read_records(run.directory)
    assert [record.start.project for record in records if record.HasField("start")] == ["after"]
    assert read_points(run.directory) == {"loss": [(1, 0.5)]}
    assert records[-1].finish.state == run_pb2.RUN_STATE_FINISHED


def test_two_runs_are_delivered_at_once(tmp_path: Path) -> None:
    runs = [RecordedRun(tmp_path / f"run{number}", SwanLabSink("project")) for number in range(2)]
    deliver_at_once(runs)
    for number, run in enumerate(runs):
        assert read_points(run.directory) == expected_points(number)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"workspace": 3}, TypeError, "workspace: expected a string, got 3"),
        ({"project": "a b"}, ValueError, "project: expected 1 to 100 ASCII letters"),
    ],
    ids=["type", "project"],
)
def test_sink_invalid_option_raises(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SwanLabSink(**options)


def test_locate_names_command_with_run_id(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "a run", SwanLabSink("project"))
    run.deliver()
    state = json.loads((run.directory / "delivery" / "swanlab.json").read_text())["state"]
    location = SwanLabSink("project").locate(run.directory, state)
    assert location is not None
    assert location.command == f"swanlab sync --id {run.manifest.id} '{run_directory(run.directory)}'"


@pytest.mark.slow
def test_sync_of_client_library_uploads_every_kind(tmp_path: Path) -> None:
    run = RecordedRun(tmp_path / "run", SwanLabSink("digits"))
    for kind, fields in make_sample_events(run.directory):
        run.journal.append(kind, *fields)
    run.log(1, {"a": math.nan})
    run.log(2, {"a": 0.25})
    run.end("FAILED")
    with swanlab_server() as (address, uploads):
        output = sync(run_directory(run.directory), run.manifest.id, address, tmp_path)
    assert "ERROR" not in output
    bodies = {path.rpartition("/")[2]: body for path, body in uploads if body}
    assert bodies["experiment"]["cuid"] == run.manifest.id
    assert {column["key"]: column["type"] for column in bodies["columns"]} == {
        "a": "FLOAT",
        "figures/loss": "IMAGE",
        "image": "IMAGE",
        "weights": "ECHARTS",
        "note": "TEXT",
        "page": "HTML",
        "sound": "AUDIO",
        "clip": "IMAGE",
    }
    rows = [row for path, body in uploads if path.endswith("/house/metrics") for row in body["metrics"] if "key" in row]
    assert [(row["index"], row["data"]) for row in rows if row["key"] == "a"] == [(1, "nan"), (2, 0.25)]
    assert {row["key"] for row in rows} == {"a", "figures/loss", "image", "weights", "note", "page", "sound", "clip"}
    (config,) = [body["config"] for path, body in uploads if path.endswith("/profile") and "config" in body]
    assert config["lr"]["value"] == 0.1
    paths = [file["path"] for file in bodies["prepare"]["files"]]
    assert paths[:2] == ["artifacts/table.json", "artifacts/folder/file.txt"]
    assert [Path(path).name for path in paths[2:]] == ["model.pt2", "state_dict.pt"]
    contents = {body for path, body in uploads if "/s3/" in path}
    files = {(run.directory / name).read_bytes() for name in ("picture.png", "file.txt")}
    assert contents >= files | {b"some *text*"}
    assert bodies["state"]["state"] == "CRASHED"


@pytest.mark.slow
def test_killed_training_is_aborted_and_resumes_same_run(tmp_path: Path) -> None:
    directory = tmp_path / "result"
    train_and_kill(tmp_path, "swanlab", 1, 5)
    wait_until(lambda: [*directory.glob("swanlab/*/*")] and read_records(directory)[-1].HasField("finish"))
    assert read_records(directory)[-1].finish.state == run_pb2.RUN_STATE_ABORTED
    assert read_points(directory)["loss"] == [(step, step / 8) for step in range(1, 6)]
    train(tmp_path, "swanlab", 6, 10)
    assert read_points(directory)["loss"] == [(step, step / 8) for step in range(1, 11)]
    assert [record.finish.state for record in read_records(directory) if record.HasField("finish")] == [
        run_pb2.RUN_STATE_FINISHED
    ]
