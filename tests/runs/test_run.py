"""Arguments, directory, and end of a run."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np
import pytest
import torch

from pte_tracking._delivery import stopping
from pte_tracking._delivery.end_wait import EndWait
from pte_tracking._delivery.sink_entries import check_sinks, merge_sink_entries
from pte_tracking._delivery.supervisor import DeliverySupervisor
from pte_tracking._runs import writer
from pte_tracking._runs.confusion_matrix import confusion_figure
from pte_tracking._runs.directory_lock import DirectoryInUseError
from pte_tracking._runs.outcome import outcome_of
from pte_tracking._runs.run import Run
from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent, Checkpoint
from pte_tracking._store.journal_reader import read
from pte_tracking._store.layout import DELIVERY_LOCK, MANIFEST_LOCK
from pte_tracking._store.lock import Lock
from pte_tracking._store.manifest import Manifest, RunNotFoundError, SinkEntry
from pte_tracking._store.place import Place
from pte_tracking.sinks import Connection, RunView, Sink
from tests.pictures import PNG

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


def recorded(directory: Path, kind: type[AnyEvent] | None = None) -> list[Any]:
    return [event for event, _ in read(directory / "journal.jsonl") if kind is None or isinstance(event, kind)]


def log(directory: Path, name: str = "log") -> Any:
    return json.loads((directory / name).read_text())


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@dataclasses.dataclass(frozen=True)
class StrangeSink(Sink):
    name: ClassVar[str] = "strange"

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MisnamedSink(StrangeSink):
    name: ClassVar[str] = "json"


# -- arguments of the constructor --------------------------------------------------------------------------------------


def test_run_unknown_sink_raises_with_installed_sinks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown sink 'mlfow'. Did you mean 'mlflow'\? Known sinks: .*json.*probe"):
        Run(tmp_path / "run", sinks=["json", "mlfow"])
    assert not (tmp_path / "run").exists()


def test_run_sink_without_client_library_raises_with_install_hint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'needy' is not installed\. Run: pip install missing-client-library"):
        Run(tmp_path, sinks=["needy"])


def test_run_sink_with_missing_package_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Sink 'gone' cannot be loaded from 'pte_gone:GoneSink': .*Reinstall"):
        Run(tmp_path, sinks=["gone"])


def test_run_entry_point_that_is_not_a_sink_raises(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Entry point 'odd' .* Expected a subclass of pte_tracking.sinks.Sink"):
        Run(tmp_path, sinks=["odd"])


@pytest.mark.parametrize("sink", [StrangeSink(), MisnamedSink()], ids=["unregistered", "name of another sink"])
def test_run_sink_without_matching_entry_point_raises(tmp_path: Path, sink: Sink) -> None:
    with pytest.raises(TypeError, match=rf"sinks: {type(sink).__name__} is not the entry point .*pyproject"):
        Run(tmp_path, sinks=[sink])


@pytest.mark.parametrize("sinks", ["json", [1], [None], [dict]])
def test_run_invalid_sinks_argument_raises(tmp_path: Path, sinks: Any) -> None:
    with pytest.raises(TypeError, match=r"sinks: expected "):
        Run(tmp_path, sinks=sinks)


def test_run_sink_option_without_json_form_raises(tmp_path: Path, probe: Probe) -> None:
    with pytest.raises(TypeError, match=r"sinks: 'probe' .* plain JSON"):
        Run(tmp_path, sinks=[probe.sink(can_rewind=object())])


def test_run_invalid_name_tags_or_params_raise(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="params: expected a mapping"):
        Run(tmp_path, params=["lr"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tags: expected a mapping"):
        Run(tmp_path, tags="team")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name: expected a string"):
        Run(tmp_path, name=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"name: .* lone surrogate"):
        Run(tmp_path, name="\ud800")


# -- logging -----------------------------------------------------------------------------------------------------------


def test_log_metrics_invalid_row_raises_and_writes_nothing(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        before = (tmp_path / "journal.jsonl").read_bytes()
        good: dict[str, Any] = {"values": {"a": 1.0}, "step": 1}
        bad: list[tuple[type[Exception], str, dict[str, Any]]] = [
            (ValueError, r"values\['a'\].*of shape \(2,\)", {"values": {"a": torch.zeros(2)}}),
            (TypeError, "values: expected a string", {"values": {1: 1.0}}),
            (TypeError, "step: expected an integer", {"step": 1.5}),
            (TypeError, r"epoch: expected .*number", {"epoch": "one"}),
            (TypeError, r"elapsed_time: expected .*number", {"elapsed_time": "one"}),
            (TypeError, "sinks: expected a list of sink names", {"sinks": "json"}),
            (TypeError, "sinks: expected a list of sink names", {"sinks": [1]}),
            (TypeError, "log: expected a string", {"log": 1}),
        ]
        for kind, match, arguments in bad:
            with pytest.raises(kind, match=match):
                run.log_metrics(**good | arguments)
        assert (tmp_path / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../log", "/nowhere/log", "a/../../log", "./log", "a//b", "log/", "\ud800", "a\0b"),
        *("run.json", "journal.jsonl", "checkpoints.json", ".lock", "delivery/x", "previous", "figures/x", "artifacts"),
    ],
)
def test_log_metrics_invalid_log_name_raises_and_writes_nothing(tmp_path: Path, name: str) -> None:
    with Run(tmp_path / "run") as run:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match=r"^log: "):
            run.log_metrics({"a": 1.0}, 1, log=name)
        assert tree(tmp_path) == before


def test_log_methods_unusual_valid_values_are_accepted(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        odd: Any = torch.tensor(2.0)
        run.log_metrics({"a": np.float32(0.5)}, True, epoch=np.float64(0.5), elapsed_time=odd)
        run.log_metrics({"a": math.nan}, np.int64(2), epoch=math.nan, sinks=("json",))  # type: ignore[arg-type]
        run.log_metrics({}, 3)
        run.log_metrics({"a": 10**400}, 4)
        run.log_text("a", "\ud800 is no character")
        run.set_tags({"a": "\ud800"})
        run.log_params({"a": "\ud800", "b": 10**30})
    assert log(tmp_path) == [
        {"a": 0.5, "epoch": 0.5, "iteration": 1, "elapsed_time": 2.0},
        {"a": None, "iteration": 2},
        {"iteration": 3},
        {"a": None, "iteration": 4},
    ]
    assert len(recorded(tmp_path)) == 9


def test_log_artifact_on_other_rank_ignores_missing_file(tmp_path: Path) -> None:
    with Run(tmp_path / "run", rank=1, world_size=2) as run:
        run.log_artifact(tmp_path / "made by rank 0")
    assert tree(tmp_path) == {}


def test_log_methods_invalid_arguments_raise(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        with pytest.raises(TypeError, match="figure: expected a matplotlib Figure"):
            run.log_figure("a", "picture", 1)
        with pytest.raises(ValueError, match="image 'a' at step 1: expected shape"):
            run.log_image("a", np.zeros((2, 2, 2, 2)), 1)
        with pytest.raises(TypeError, match="text: expected a string"):
            run.log_text("a", 1, 1)  # type: ignore[arg-type]
        with pytest.raises(FileNotFoundError, match=r"path: '.*nothing' does not exist"):
            run.log_artifact(tmp_path / "nothing")
        with pytest.raises(ValueError, match=r"path: .*snapshot.* directory"):
            run.log_checkpoint("/elsewhere/snapshot", 1, "00", 1)
    assert [type(event).__name__ for event in recorded(tmp_path)] == ["RunStarted", "RunEnded"]


@pytest.mark.parametrize("key", ["a", "a/b", "..", "/", "日本" * 100, "x" * 300, "\0\n", ".hidden", "con:"])
def test_log_figure_any_key_is_stored_in_figures_directory(tmp_path: Path, key: str) -> None:
    with Run(tmp_path / "run") as run:
        run.log_figure(key, PNG, 1)
    (event,) = recorded(tmp_path / "run", events.Figure)
    path = (tmp_path / "run" / event.path).resolve()
    assert path.read_bytes() == PNG
    assert (tmp_path / "run" / "figures").resolve() in path.parents


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 1.0 + 2**-52],
        [1e16, 1e16 + 2],
        [0.0, 5e-324],
        [-1.7e308, 1.7e308],
        [3.0],
        [1e300],
        [7e-310, math.inf, -math.inf, math.nan],
        [True, False],
        list(range(100)),
        np.array([6e4, -6e4], np.float16),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True),
        torch.nn.Parameter(torch.ones(3, 4)),
    ],
    ids=repr,
)
def test_log_histogram_any_values_is_finite_and_complete(tmp_path: Path, values: Any) -> None:
    with Run(tmp_path) as run:
        run.log_histogram("weights", values, 1)
    (histogram,) = recorded(tmp_path, events.Histogram)
    flat = values.detach().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values, float)
    finite = flat[np.isfinite(flat)]
    assert sum(histogram.counts) == len(finite)
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert all(edge < next_edge for edge, next_edge in zip(histogram.edges, histogram.edges[1:], strict=False))
    assert histogram.edges[0] <= histogram.min <= histogram.max <= histogram.edges[-1]


def test_log_histogram_without_finite_values_is_skipped(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_histogram("weights", [math.nan], 1)
        run.log_histogram("weights", [], 1)
    assert not recorded(tmp_path, events.Histogram)


def test_log_confusion_matrix_writes_figure(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_confusion_matrix("val/confusion", torch.tensor([[3, 1], [0, 2]]), 5, ["cat", "dog"])
        run.log_confusion_matrix("many", np.zeros((30, 30)), 5)
    few, many = recorded(tmp_path, events.Figure)
    assert [(few.key, few.step), (many.key, many.step)] == [("val/confusion", 5), ("many", 5)]
    for event in (few, many):
        assert (tmp_path / event.path).read_bytes().startswith(b"\x89PNG")


def test_confusion_figure_shows_counts_and_labels() -> None:
    figure = confusion_figure([[3, 1], [0, 2]], ["cat", "dog"])
    axes = figure.axes[0]
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [
        ((0, 0), "3"),
        ((1, 0), "1"),
        ((1, 1), "2"),
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[0.75, 0.25], [0, 1]]


@pytest.mark.parametrize(
    ("matrix", "labels", "message"),
    [
        ([[1, 2]], None, r"matrix: expected shape \(classes, classes\), got \(1, 2\)"),
        ([[-1.0]], None, "matrix: expected finite counts"),
        ([[math.nan]], None, "matrix: expected finite counts"),
        ([["a"]], None, "matrix: expected finite counts"),
        ([[1]], ["a", "b"], r"labels: expected as many labels as classes \(1\), got 2"),
    ],
)
def test_log_confusion_matrix_invalid_input_raises(tmp_path: Path, matrix: Any, labels: Any, message: str) -> None:
    with Run(tmp_path) as run, pytest.raises(ValueError, match=message):
        run.log_confusion_matrix("confusion", matrix, 1, labels)


def test_log_dataset_records_name_digest_and_source(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.log_dataset("digits", "abc")
        run.log_dataset("digits", "def", context="val", source="https://example.org")
        with pytest.raises(ValueError, match="digest: expected a non-empty string"):
            run.log_dataset("digits", "")
    assert [
        (event.name, event.digest, event.context, event.source) for event in recorded(tmp_path, events.Dataset)
    ] == [
        ("digits", "abc", "train", ""),
        ("digits", "def", "val", "https://example.org"),
    ]


# -- run directory -----------------------------------------------------------------------------------------------------


def test_run_construction_creates_no_directory(tmp_path: Path) -> None:
    Run(tmp_path / "run", params={"lr": 1})
    assert not (tmp_path / "run").exists()


def test_open_directory_of_other_process_raises_with_its_id(tmp_path: Path) -> None:
    script = "import sys, time, pte_tracking; run = pte_tracking.Run(sys.argv[1]); run.open(); print(1, flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", script + "; time.sleep(60)", tmp_path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout
        with other.stdout:
            assert other.stdout.readline() == "1\n"
        before = tree(tmp_path)
        for resume in (True, False):
            with pytest.raises(
                DirectoryInUseError,
                match=rf"Run directory '{tmp_path}' .* process {other.pid} on .*another run directory",
            ):
                Run(tmp_path, resume=resume).open()
        assert tree(tmp_path) == before
    finally:
        other.kill()
        other.wait()
    with Run(tmp_path, resume=True) as run:
        run.log_metrics({"a": 1.0}, 1)


def test_open_earlier_run_delivered_by_other_host_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stopping, "_REMOTE_STOP_SECONDS", 0.1)
    with Run(tmp_path):
        pass
    path = tmp_path / DELIVERY_LOCK
    script = "import sys, pathlib; from pte_tracking._store.lock import Lock; Lock(pathlib.Path(sys.argv[1])); "
    script += "print(1, flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    assert other.stdout.readline() == "1\n"
    path.write_text('{"pid":7,"host":"elsewhere"}')
    before = tree(tmp_path)
    with pytest.raises(DirectoryInUseError, match=rf"run directory '{tmp_path}' .* process 7 on elsewhere\. Stop"):
        Run(tmp_path).open()
    assert before.items() <= tree(tmp_path).items()
    assert "waiting for process 7 on elsewhere to release the earlier run" in caplog.text
    other.communicate()
    with Run(tmp_path):
        pass


def test_second_run_in_same_process_and_directory_raises(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        with pytest.raises(DirectoryInUseError, match=r"manager or Run in this process\. Call its close\(\) first"):
            Run(tmp_path).log_metrics({"a": 1.0}, 1)
        run.log_metrics({"a": 1.0}, 1)
    assert len(log(tmp_path)) == 1


def test_new_run_archives_all_files_of_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a file of the user")
    with Run(tmp_path) as run:
        first = run.id
        for name in ("log", "log[1]", "val/log*", "??"):
            run.log_metrics({"a": 1.0}, 1, log=name)
        run.log_figure("loss", PNG, 1)
        run.log_text("a", "b")
        (tmp_path / "snapshot[1]").write_bytes(b"snapshot")
        run.log_checkpoint("snapshot[1]", 1, "00", 8)
    before = {name: data for name, data in tree(tmp_path).items() if name not in ("notes.txt", ".lock")}
    with Run(tmp_path) as run:
        second = run.id
    archived = tmp_path / "previous" / first
    assert first != second
    assert tree(archived) == before
    assert set(tree(tmp_path)) - {f"previous/{first}/{name}" for name in before} == {
        *("notes.txt", ".lock", "run.json", "journal.jsonl", "delivery/json.json"),
    } | {name for name in tree(tmp_path) if name == "delivery/run.json.lock"}


def test_interrupted_archive_is_completed(tmp_path: Path) -> None:
    for resume in (False, True):
        directory = tmp_path / str(resume)
        with Run(directory) as run:
            first = run.id
            run.log_metrics({"a": 1.0}, 1)
        before = {name: data for name, data in tree(directory).items() if name != ".lock"}
        (directory / "previous" / first).mkdir(parents=True)
        for name in ("log", "journal.jsonl"):
            (directory / name).rename(directory / "previous" / first / name)
        with Run(directory, resume=resume) as run:
            assert run.id != first
            run.log_metrics({"a": 2.0}, 1)
        assert tree(directory / "previous" / first) == before
        assert log(directory) == [{"a": 2.0, "iteration": 1}]


@pytest.mark.parametrize("resume", [True, False])
def test_open_journal_of_unknown_run_without_manifest_raises(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "journal.jsonl").write_text('{"day":1}\n')
    with pytest.raises(RunNotFoundError, match=r"journal\.jsonl .*run\.json"):
        Run(tmp_path, resume=resume).open()
    assert (tmp_path / "journal.jsonl").read_text() == '{"day":1}\n'


@pytest.mark.parametrize("content", [None, b"", b"\0" * 512])
def test_open_run_without_manifest_rebuilds_it_from_the_journal(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    with Run(tmp_path, sinks=["json"], name="first") as run:
        run.log_metrics({"a": 1.0}, 1)
        run.log_metrics({"a": 1.0}, 1, log="val/log")
    before = Manifest.load(tmp_path)
    (tmp_path / "run.json").unlink()
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with Run(tmp_path, sinks=["json"], resume=True) as resumed:
        resumed.log_metrics({"a": 2.0}, 2)
    after = Manifest.load(tmp_path)
    assert (after.id, after.name, after.sinks) == (before.id, before.name, before.sinks)
    assert {"log", "val"} <= set(after.files)
    assert len(log(tmp_path)) == 2
    assert caplog.text.count("rebuilt from the journal") == 1


def test_new_run_archives_run_without_manifest(tmp_path: Path) -> None:
    with Run(tmp_path, sinks=["json"]) as first:
        first.log_metrics({"a": 1.0}, 1)
    before = {name: (tmp_path / name).read_bytes() for name in ("journal.jsonl", "log")}
    (tmp_path / "run.json").unlink()
    with Run(tmp_path, sinks=["json"]) as second:
        second.log_metrics({"a": 2.0}, 1)
    assert first.id != second.id
    archived = tmp_path / "previous" / first.id
    assert {name: (archived / name).read_bytes() for name in before} == before


def test_manifest_is_flushed_to_disk_with_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = set()
    original = os.fsync

    def fsync(fd: int) -> None:
        original(fd)
        flushed.add(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    with Run(tmp_path, sinks=["json"]) as run:
        run.log_metrics({"a": 1.0}, 1)
        assert (tmp_path / "run.json").stat().st_ino in flushed
        assert tmp_path.stat().st_ino in flushed


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"format": 3}, r"format 3 is not supported \(this version reads format 2\)\. Upgrade"),
        ("{", "damaged or not a run manifest"),
        ("[]", "damaged or not a run manifest"),
        ("\xff\xfe", "damaged or not a run manifest"),
        (" ", "damaged or not a run manifest"),
        ({"id": "../../elsewhere"}, "damaged or not a run manifest"),
        ({"id": 5}, "damaged or not a run manifest"),
        ({"sinks": "json"}, "damaged or not a run manifest"),
        ({"start_time": None}, "damaged or not a run manifest"),
    ],
)
def test_open_unreadable_manifest_raises_and_changes_nothing(
    tmp_path: Path, resume: bool, content: Any, match: str
) -> None:
    with Run(tmp_path) as run:
        run.log_metrics({"a": 1.0}, 1)
    path = tmp_path / "run.json"
    if isinstance(content, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | content))
    else:
        path.write_text(content, encoding="latin-1")
    before = tree(tmp_path)
    with pytest.raises(RunNotFoundError, match=match):
        Run(tmp_path, resume=resume).open()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["os", "os:system", "pte_probe:ProbeSink", "tests.runs.test_run:StrangeSink", "this"])
def test_open_manifest_with_unknown_sink_raises_without_import(tmp_path: Path, name: str) -> None:
    with Run(tmp_path):
        pass
    path = tmp_path / "run.json"
    manifest = json.loads(path.read_text())
    manifest["sinks"].append({"key": "x", "name": name, "options": {"command": "true"}})
    path.write_text(json.dumps(manifest))
    modules = set(sys.modules)
    with pytest.raises(ValueError, match="Unknown sink"):
        Run(tmp_path, resume=True).open()
    assert set(sys.modules) == modules
    # The failed attempt released the directory and kept the run.
    manifest["sinks"].pop()
    path.write_text(json.dumps(manifest))
    with Run(tmp_path, resume=True):
        pass


def test_archive_moves_only_files_within_run_directory(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    (tmp_path / "precious").write_text("a file outside of the run")
    with Run(directory) as run:
        first = run.id
    path = directory / "run.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = ["../*", "../*", "*", "..", ".", "", str(tmp_path / "precious"), "previous", "delivery/*"]
    path.write_text(json.dumps(manifest))
    (directory / "a file").touch()
    with Run(directory):
        pass
    assert (tmp_path / "precious").exists()
    assert (directory / "previous" / first / "a file").exists()
    assert (directory / "previous" / first / "delivery" / "json.json").exists()


def test_resumed_run_keeps_id_and_name(tmp_path: Path) -> None:
    with Run(tmp_path, name="test", params={"lr": 1}) as run:
        first = run.id
        run.log_metrics({"a": 1.0}, 1)
    for step in (2, 3):
        with Run(tmp_path, name="another", resume=True) as run:
            assert (run.id, run.name) == (first, "test")
            run.log_metrics({"a": float(step)}, step)
    assert [row["iteration"] for row in log(tmp_path)] == [1, 2, 3]
    assert [event.seq for event in recorded(tmp_path)] == list(range(1, len(recorded(tmp_path)) + 1))
    assert [event.resumed for event in recorded(tmp_path, events.RunStarted)] == [False, True, True]
    assert not (tmp_path / "previous").exists()


def test_equal_sinks_share_one_entry(probe: Probe) -> None:
    known: list[SinkEntry] = []
    for _ in range(2):
        sinks = check_sinks(["json", "probe", probe.sink(), dataclasses.replace(probe.sink())])
        known = merge_sink_entries(sinks, known)
        assert [entry.key for entry in known] == ["json", "probe", "probe-2"]
        known = msgspec.json.decode(msgspec.json.encode(known), type=list[SinkEntry])


def test_open_at_position_rewinds_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log_metrics({"a": 1.0}, 1)
    point = run.position(1)
    run.log_metrics({"a": 2.0}, 2)
    run.close()
    run = Run(tmp_path)
    run.open(point)
    run.rewind()
    assert log(tmp_path) == [{"a": 1.0, "iteration": 1}]
    run.log_metrics({"a": 20.0}, 2)
    run.close()
    assert log(tmp_path) == [{"a": 1.0, "iteration": 1}, {"a": 20.0, "iteration": 2}]
    assert [row.values for row in run.rows()] == [{"a": 1.0}, {"a": 20.0}]


def test_rewound_finished_run_keeps_log_and_cursor_consistent(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log_metrics({"a": 0.0}, 0)
    point = run.position(0)
    run.close()
    for _ in range(3):
        run = Run(tmp_path)
        run.open(point)
        run.rewind()
        for step in range(1, 5):
            run.log_metrics({"a": step}, step)
        run.close()
        saved = json.loads((tmp_path / "delivery" / "json.json").read_text())
        assert saved["position"] == (tmp_path / "journal.jsonl").stat().st_size
        assert [row["iteration"] for row in log(tmp_path)] == [0, 1, 2, 3, 4]


def test_open_at_position_of_other_run_archives_existing_run(tmp_path: Path) -> None:
    with Run(tmp_path / "one") as one:
        one.log_metrics({"a": 1.0}, 1)
        point = one.position(1)
    with Run(tmp_path / "two") as two:
        two.log_metrics({"b": 1.0}, 1)
    run = Run(tmp_path / "two")
    run.open(point, journal=tmp_path / "one" / "journal.jsonl")
    run.rewind()
    run.log_metrics({"a": 2.0}, 2)
    run.close()
    assert run.id == one.id
    assert log(tmp_path / "two") == [{"a": 1.0, "iteration": 1}, {"a": 2.0, "iteration": 2}]
    assert log(tmp_path / "two" / "previous" / two.id) == [{"b": 1.0, "iteration": 1}]


# -- end of the run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (SystemExit(), "FINISHED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(3), "FAILED"),
        (SystemExit("message"), "FAILED"),
        (SystemExit(143), "KILLED"),
        (KeyboardInterrupt(), "KILLED"),
        (ValueError("\ud800"), "FAILED"),
    ],
    ids=repr,
)
def test_exit_maps_exception_to_status(tmp_path: Path, error: BaseException | None, status: str) -> None:
    run = Run(tmp_path)
    run.open()
    run.__exit__(None if error is None else type(error), error, None)
    (event,) = recorded(tmp_path, events.RunEnded)
    assert event.status == status
    assert (event.error is None) == (status == "FINISHED")


def test_outcome_of_unprintable_error_is_failed() -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert outcome_of(UnprintableError())[0] == "FAILED"


def test_logging_into_deleted_directory_does_not_raise(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with Run(directory) as run:
        run.log_metrics({"a": 1.0}, 1)
        shutil.rmtree(directory)
        for step in range(2, 3000):
            run.log_metrics({"a": 1.0}, step)
        run.log_metrics({"a": 1.0}, 1, log="other")
        run.log_figure("a", PNG, 1)
        run.log_text("a", "b")


def test_supervisor_wait_in_deleted_directory_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    delivery = EndWait(DeliverySupervisor(tmp_path / "run", Place(tmp_path / "run")), "an ID")
    shutil.rmtree(tmp_path / "run")
    delivery.wait(0.1)


def test_concurrent_first_logging_from_threads_loses_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)
    barrier = threading.Barrier(4)

    def work(thread: int) -> None:
        barrier.wait()
        for step in range(50):
            run.log_metrics({f"thread {thread}": step}, step, log=f"log {thread}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.close()
    for number in range(4):
        assert [row[f"thread {number}"] for row in log(tmp_path, f"log {number}")] == list(range(50))
    assert len(recorded(tmp_path)) == 202


def test_sink_added_during_open_is_kept_in_manifest(tmp_path: Path) -> None:
    with Run(tmp_path, sinks=["json"]):
        pass
    held_lock = Lock(tmp_path / MANIFEST_LOCK)
    run = Run(tmp_path, sinks=["tensorboard"], resume=True, close_timeout=0)
    opening = threading.Thread(target=run.rewind)
    opening.start()
    current_manifest = Manifest.load(tmp_path)
    opening.join(0.3)  # rewind() waits for the lock
    msgspec.structs.replace(current_manifest, sinks=[*current_manifest.sinks, SinkEntry("json-2", "json")]).save(
        tmp_path
    )
    held_lock.release()
    opening.join()
    run.close()
    assert [entry.key for entry in Manifest.load(tmp_path).sinks] == ["json", "json-2", "tensorboard"]


@pytest.mark.parametrize(("given", "status"), [(None, "FAILED"), ("FINISHED", "FAILED"), ("KILLED", "KILLED")])
def test_close_with_failing_callback_ends_run(tmp_path: Path, given: Any, status: str) -> None:
    run = Run(tmp_path)
    run.before_close.append(lambda: run.log_metrics({"last": 1.0}, 2))
    run.before_close.append(lambda: 1 / 0)
    run.log_metrics({"a": 1.0}, 1)
    with pytest.raises(ZeroDivisionError):
        run.close(given)
    assert not run.is_open
    assert [event.step for event in recorded(tmp_path, events.Metrics)] == [1, 2]
    assert [event.status for event in recorded(tmp_path, events.RunEnded)] == [status]
    with Run(tmp_path):
        pass


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_writes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    (tmp_path / "file").touch()
    with Run(directory) as run:
        run.log_metrics({"a": 1.0}, 1)
        run.before_close.append(lambda: (tmp_path / "closed by a child").touch() if os.getpid() != parent else None)
        parent = os.getpid()
        before = tree(directory)
        child = os.fork()
        if not child:
            code = 1
            try:
                run.log_metrics({"a": 2.0}, 2)
                run.log_metrics({"a": 2.0}, 2, log="other")
                run.log_figure("a", PNG, 2)
                run.log_artifact(tmp_path / "file")
                run.log_checkpoint("snapshot", 2, "00", 1)
                run.register_files("other")
                run.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert tree(directory) == before
        assert not (tmp_path / "closed by a child").exists()
        with pytest.raises(DirectoryInUseError):
            Run(directory).open()
        run.log_metrics({"a": 3.0}, 3)
    assert [row["a"] for row in log(directory)] == [1.0, 3.0]


def test_log_artifact_from_any_location_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "file").write_text("content")
    with Run(directory) as run:
        (directory / "own.txt").write_text("own")
        run.log_artifact(tmp_path / "folder", "data")
        run.log_artifact(tmp_path / "folder" / "deep" / "file")
        run.log_artifact(directory / "own.txt")
        with pytest.raises(ValueError, match=r"path: .* contains the run directory"):
            run.log_artifact(directory)
        with pytest.raises(ValueError, match=r"path: .* contains the run directory"):
            run.log_artifact(tmp_path)
        with pytest.raises(ValueError, match=r"artifact_path: "):
            run.log_artifact(tmp_path / "folder", "../../elsewhere")
    assert [event.path for event in recorded(directory, events.Artifact)] == [
        "artifacts/data/folder",
        "artifacts/file",
        "own.txt",
    ]
    assert (directory / "artifacts/data/folder/deep/file").read_text() == "content"


def test_archived_run_is_reported_by_package_logger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pte_tracking"):
        with Run(tmp_path, name="first"):
            pass
        with Run(tmp_path):
            pass
    assert "archived the earlier run 'first' to" in caplog.text


def test_checkpoint_list_written_late_by_one_thread_does_not_replace_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = writer.write_checkpoint_list

    with Run(tmp_path, sinks=[]) as run:
        run.log_checkpoint("first", 1, "00", 1)

        def write_late(directory: Path, checkpoints: list[Checkpoint]) -> None:
            monkeypatch.setattr(writer, "write_checkpoint_list", write)
            run.remove_checkpoint("first", 1)  # as another thread does
            write(directory, checkpoints)

        monkeypatch.setattr(writer, "write_checkpoint_list", write_late)
        run.log_checkpoint("second", 2, "00", 1)
    listed = json.loads((tmp_path / "checkpoints.json").read_text())
    assert [entry["path"] for entry in listed] == ["second"]
