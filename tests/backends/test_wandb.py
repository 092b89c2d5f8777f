"""Weights & Biases files in offline mode, read back record by record."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from wandb.proto import wandb_internal_pb2 as pb

import pte_tracking as pte
from pte_backends._record_log import frame
from pte_backends.wandb import WandbSink, _framing, _models
from pte_tracking._store import events
from pte_tracking.sinks import BestMetric, Display, EventKind, ModelSignature, Sink
from pte_tracking.testing import Points, RecordedRun, SinkContract
from tests.backends.wandb_server import WandbServer
from tests.cli.invocation import invoke
from tests.servers import serving

REFERENCE_SCRIPT = """
import numpy, wandb
settings = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True, silent=True)
with wandb.init(project="p", id="reference", mode="offline", config={"lr": 0.1}, settings=settings) as run:
    run.define_metric("*", step_metric="iteration")
    for step in range(200):
        run.log({"train/loss": 1 / (step + 1), "iteration": step, "x" * (step * 30 + 1): step})
    run.log({"odd": float("nan")})
    run.log({"h": wandb.Histogram(np_histogram=([1, 2], [0, 1, 2]))})
    run.log({"p": wandb.Image(numpy.zeros((4, 6, 3), dtype="uint8"))})
"""


def read_records(directory: Path) -> list[pb.Record]:
    (path,) = directory.glob("wandb/offline-run-*/run-*.wandb")
    return [pb.Record.FromString(raw) for raw in _framing.parse(path.read_bytes())]


def decode_rows(stored_records: list[pb.Record]) -> Iterator[dict[str, Any]]:
    for record in stored_records:
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                *parents, last = item.nested_key
                inner = row
                for parent in parents:
                    inner = inner.setdefault(parent, {})
                inner[last] = json.loads(item.value_json)
            assert row["_step"] == record.history.step.num
            yield row


def read_run_points(directory: Path) -> Points:
    points: Points = {}
    for row in decode_rows(read_records(directory)):
        for key, value in row.items():
            if key not in ("iteration", "_step", "_timestamp", "_runtime") and not isinstance(value, dict):
                points.setdefault(key, []).append((row["iteration"], value))
    return points


class TestContract(SinkContract):
    large_run_rows = 2000

    def make_sink(self, folder: Path) -> Sink:
        return WandbSink("project")

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        return read_run_points(run_directory)

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        records = read_records(run_directory)
        values = {key: value for row in decode_rows(records) for key, value in row.items()}
        config = {item.key for record in records for item in record.config.update}
        files = {file.path for record in records for file in record.files.files}
        kinds = {key: value["_type"] for key, value in values.items() if isinstance(value, dict)}
        models = [record.artifact for record in records if record.artifact.type == "model"]
        stored = {entry.path for model in models for entry in model.manifest.contents}
        return {
            "metrics": "native" if values["a"] == 1.0 else None,
            "params": "native" if "lr" in config else None,
            "tags": "artifact" if "tags/team" in config else None,
            "figure": "native" if kinds["figures/loss"] == "image-file" else None,
            "image": "native" if kinds["image"] == "image-file" else None,
            "histogram": "native" if kinds["weights"] == "histogram" else None,
            "text": "native" if kinds["note"] == "html-file" else None,
            "table": "native" if kinds["words"] == "table-file" else None,
            "html": "native" if kinds["page"] == "html-file" else None,
            "audio": "native" if kinds["sound"] == "audio-file" else None,
            "video": "native" if kinds["clip"] == "video-file" else None,
            "dataset": "artifact" if "datasets/train/digits" in config else None,
            "artifact": "native" if "artifacts/folder/file.txt" in files else None,
            "checkpoint": "native" if "snapshot" in stored else None,
            "model": "native" if "model.pt2" in stored else None,
            "status": "native" if records[-1].HasField("exit") else None,
        }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with files that the client library wrote in offline mode."""
    folder = tmp_path_factory.mktemp("reference")
    env = {**os.environ, "WANDB_DIR": str(folder), "WANDB_CACHE_DIR": str(folder), "WANDB_CONFIG_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", REFERENCE_SCRIPT], cwd=folder, env=env, check=True, timeout=100)
    return folder


@pytest.mark.slow
def test_frame_matches_client_library_byte_for_byte(reference: Path) -> None:
    (path,) = reference.glob("wandb/offline-run-*/run-*.wandb")
    content = path.read_bytes()
    assert len(content) > 4 * 32 * 1024  # Several blocks, so that records are split.
    framed = _framing.FILE_HEADER
    for record in _framing.parse(content):
        framed += frame(record, len(framed))
    assert framed == content


@pytest.mark.slow
def test_stored_values_have_same_shape_as_client_library(reference: Path, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink("p"))
    png = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000006000000040802") + bytes(9)
    (recorded.directory / "p.png").write_bytes(png)
    recorded.journal.append(events.Params, {"lr": 0.1})
    recorded.log(1, {"odd": math.nan})
    recorded.journal.append(events.Histogram, "h", 2, [0.0, 1.0, 2.0], [1, 2], 0.0, 2.0, 3.0, 4.0)
    recorded.journal.append(events.Image, "p", 3, "p.png")
    recorded.end()
    reference_records, written_records = read_records(reference), read_records(recorded.directory)

    def shape(stored_records: list[pb.Record], key: str) -> tuple[set[str], set[str]]:
        row = next(row for row in decode_rows(stored_records) if key in row)
        value = row[key]
        return set(row) - {"iteration", "epoch"}, set(value) if isinstance(value, dict) else set()

    for key in ("odd", "h", "p"):
        assert shape(written_records, key) == shape(reference_records, key)
    for stored_records in (reference_records, written_records):
        (metric,) = (record.metric for record in stored_records if record.metric.glob_name)
        assert (metric.glob_name, metric.step_metric, metric.options.step_sync) == ("*", "iteration", True)
        assert stored_records[-1].exit.exit_code == 0
    image = next(row["p"] for row in decode_rows(written_records) if "p" in row)
    assert (image["width"], image["height"], image["format"], image["_type"]) == (6, 4, "png", "image-file")
    (stored,) = recorded.directory.glob("wandb/*/files/media/images/*.png")
    assert str(stored).endswith(image["path"])
    assert stored.read_bytes() == png


def test_run_writes_params_metrics_artifacts_and_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "digits")
    recorded = RecordedRun(tmp_path / "run", WandbSink().resolve())
    snapshot = recorded.directory / "snapshot_iter_2"
    snapshot.write_bytes(b"state")
    recorded.journal.append(events.Params, {"lr": 0.1, "name": "ü"})
    recorded.journal.append(events.Tags, {"kind": "test"})
    recorded.journal.append(events.Dataset, "digits", "abc", "train", "sklearn")
    recorded.log(1, {"loss": 0.5}, epoch=0)
    recorded.log(2, {"loss": 0.25, "count": 3}, epoch=1)
    recorded.journal.append(events.Checkpoint, "snapshot_iter_2", 2, "0" * 64, 5, 1, {"loss": 0.25})
    recorded.journal.append(events.Text, "note", 2, "<b>")
    recorded.end()
    stored_records = read_records(recorded.directory)
    assert [record.num for record in stored_records] == list(range(1, len(stored_records) + 1))
    (run,) = (record.run for record in stored_records if record.HasField("run"))
    assert (run.run_id, run.project) == (recorded.manifest.id, "digits")
    config = {item.key: json.loads(item.value_json) for record in stored_records for item in record.config.update}
    digits = {"digest": "abc", "source": "sklearn"}
    assert config == {"lr": 0.1, "name": "ü", "tags/kind": "test", "datasets/train/digits": digits}
    (artifact,) = (record.artifact for record in stored_records if record.HasField("artifact"))
    assert (artifact.type, list(artifact.aliases)) == ("model", ["latest", "step-2"])
    (entry,) = artifact.manifest.contents
    digest = base64.b64encode(hashlib.md5(b"state").digest()).decode()
    assert (entry.path, entry.digest, entry.size) == ("snapshot_iter_2", digest, 5)
    summary = {item.nested_key[0]: json.loads(item.value_json) for item in stored_records[-2].summary.update}
    assert summary == {"loss": 0.25, "count": 3}


def test_superseded_metrics_and_pruned_checkpoints_are_removed(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink("p"))
    for step in (1, 2):
        (recorded.directory / f"s{step}").write_bytes(b"state")
        recorded.journal.append(events.Checkpoint, f"s{step}", step, "0" * 64, 5, 1, {})
    mark = recorded.log(2, {"loss": 0.5})
    recorded.log(3, {"loss": 9.0})
    recorded.deliver()
    recorded.journal.append(events.CheckpointRemoved, "s1", 1)
    recorded.journal.rewind(mark, 2)
    recorded.log(3, {"loss": 0.25})
    (recorded.directory / "s1").unlink()
    recorded.journal.append(events.CheckpointRemoved, "s1", 1)
    recorded.end()
    assert read_run_points(recorded.directory) == {"loss": [(2, 0.5), (3, 0.25)]}
    aliases = [
        list(record.artifact.aliases) for record in read_records(recorded.directory) if record.HasField("artifact")
    ]
    assert aliases == [["latest", "step-2"]]


def test_snapshot_pruned_after_its_path_was_checked_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def check_and_prune(directory: Path, path: Path) -> tuple[list[Path], int]:
        path.unlink()
        return [path], 0

    run = RecordedRun(tmp_path / "run", WandbSink("p"))
    (run.directory / "snapshot").write_bytes(b"state")
    run.journal.append(events.Checkpoint, "snapshot", 1, "0" * 64, 5, 1, {})
    run.log(1, {"loss": 0.5})
    monkeypatch.setattr(_models, "list_owned_files", check_and_prune)
    run.deliver()
    assert run.rejected_events == {}
    assert read_run_points(run.directory) == {"loss": [(1, 0.5)]}
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_truncated_file_is_rebuilt(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink("p"))
    for step in range(1, 50):
        recorded.log(step, {"loss": step / 7})
    recorded.deliver()
    (path,) = recorded.directory.glob("wandb/*/run-*.wandb")
    path.write_bytes(path.read_bytes()[:100])
    recorded.crash()
    recorded.log(50, {"loss": 50 / 7})
    recorded.end()
    assert read_run_points(recorded.directory) == {"loss": [(step, step / 7) for step in range(1, 51)]}


@pytest.mark.slow
def test_file_is_synced_by_client_library(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink("p"))
    (recorded.directory / "s1").write_bytes(b"state")
    (recorded.directory / "diff.txt").write_text("diff")
    recorded.journal.append(events.Provenance, {"git_commit": "1" * 40}, {"diff.txt": "diff.txt"})
    for step in range(1, 151):
        recorded.log(step, {"loss": step / 7, "x" * step * 10: step})  # several blocks
    recorded.journal.append(events.Checkpoint, "s1", 150, "0" * 64, 5, 1, {})
    recorded.end("FAILED")
    (directory,) = recorded.directory.glob("wandb/offline-run-*")
    folders = {f"WANDB_{name}_DIR": str(tmp_path) for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT")}
    with serving(WandbServer()) as server:
        env = {**os.environ, **server.environment, **folders, "WANDB_ERROR_REPORTING": "false"}
        # The new reader of 0.28 waits forever. The earlier reader uploads an exit code of its own.
        is_legacy = Version(version("wandb")) < Version("0.29")
        options = ["--legacy"] if version("wandb").startswith("0.28.") else []
        command = [sys.executable, "-m", "wandb", "sync", *options, str(directory)]
        subprocess.run(command, cwd=tmp_path, env=env, check=True, timeout=100)
    assert [(row["iteration"], row["loss"]) for row in server.rows] == [(step, step / 7) for step in range(1, 151)]
    assert server.exit_code == (0 if is_legacy else 1)
    assert any("CreateArtifact" in operation for operation in server.operations)
    if not is_legacy:
        assert "1" * 40 in [variables.get("commit") for variables in server.variables]
        uploaded = [name for variables in server.variables for name in variables.get("files", [])]
        assert {"diff.patch", "wandb-metadata.json"} <= set(uploaded)


@pytest.mark.slow
def test_training_writes_files_and_leaves_no_process(tmp_path: Path) -> None:
    with pte.Run(tmp_path / "result", sinks=["wandb"], close_timeout=60) as run:
        for step in range(1, 101):
            run.log_metrics({"loss": step / 7}, step)
    assert read_run_points(tmp_path / "result") == {"loss": [(step, step / 7) for step in range(1, 101)]}
    assert read_records(tmp_path / "result")[-1].exit.exit_code == 0
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [words for words in running if b"wandb-core" in words and str(tmp_path).encode() in words]


@pytest.mark.parametrize("damage", [b"", b"another format", None])
def test_parse_damaged_file_raises_value_error(tmp_path: Path, damage: bytes | None) -> None:
    file_bytes = _framing.FILE_HEADER + frame(b"record", len(_framing.FILE_HEADER))
    with pytest.raises(ValueError, match=r"Weights & Biases|damaged"):
        _framing.parse(file_bytes[:-1] + b"?" if damage is None else damage)


def test_sink_invalid_project_raises_type_error() -> None:
    with pytest.raises(TypeError, match="project: expected a string"):
        WandbSink(project=3)  # type: ignore[arg-type]


def test_steps_that_go_back_keep_every_row(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink("p"))
    for step, value in [(1, 0.1), (2, 0.2), (1, 1.1), (2, 1.2)]:
        recorded.log(step, {"loss": value})
    recorded.end()
    rows = list(decode_rows(read_records(recorded.directory)))
    assert [(row["_step"], row["iteration"], row["loss"]) for row in rows] == [
        (0, 1, 0.1),
        (1, 2, 0.2),
        (2, 1, 1.1),
        (3, 2, 1.2),
    ]


def test_changed_options_rewrite_header_and_keep_status(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink(project="before"))
    recorded.log(1, {"loss": 0.5})
    recorded.end()
    result = invoke("sync", recorded.directory, "--to", "wandb", "--option", "project=after")
    assert result.exit_code == 0, result.output
    stored_records = read_records(recorded.directory)
    assert {record.run.project for record in stored_records if record.HasField("run")} == {"after"}
    assert read_run_points(recorded.directory)["loss"] == [(1, 0.5)]
    assert [record.exit.exit_code for record in stored_records if record.HasField("exit")] == [0]


def test_exported_model_is_version_of_model_artifact(tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", WandbSink("project"))
    (recorded.directory / "step_2").mkdir()
    (recorded.directory / "step_2" / "model.pt2").write_bytes(b"a program")
    signature = ModelSignature([], [])
    for number, best in enumerate([BestMetric("accuracy", "max", 0.5), None]):
        fields = ("main", 2 + number, "step_2", "0" * 64, 9, "2.6.0", signature, "", best)
        recorded.journal.append(events.Model, *fields)
    recorded.end()
    stored = [record.artifact for record in read_records(recorded.directory) if record.HasField("artifact")]
    name = f"main-{recorded.manifest.id}"
    assert [(artifact.type, artifact.name, list(artifact.aliases)) for artifact in stored] == [
        ("model", name, ["latest", "step-2", "best"]),
        ("model", name, ["latest", "step-3"]),
    ]
    assert json.loads(stored[0].metadata)["accuracy"] == 0.5
    assert [entry.path for entry in stored[0].manifest.contents] == ["model.pt2"]
