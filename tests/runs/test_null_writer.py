"""Runs in processes that do not write: other ranks and forked children."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.run import Run
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store.manifest import Manifest
from tests.pictures import PNG

INVALID_CALLS: dict[str, tuple[type[Exception], str, Callable[[Any], None]]] = {
    "metrics": (TypeError, r"values\['a'\]", lambda run: run.log_metrics({"a": "b"}, 1)),
    "metrics sinks": (TypeError, "sinks: ", lambda run: run.log_metrics({"a": 1.0}, 1, sinks="json")),
    "metrics log": (ValueError, "log: ", lambda run: run.log_metrics({"a": 1.0}, 1, log="../log")),
    "params": (TypeError, "params: ", lambda run: run.log_params(["lr"])),
    "tags": (TypeError, "tags: ", lambda run: run.set_tags("team")),
    "figure": (TypeError, "figure: ", lambda run: run.log_figure("a", "picture", 1)),
    "figure key": (ValueError, "key: ", lambda run: run.log_figure("", PNG, 1)),
    "figure step": (TypeError, "step: ", lambda run: run.log_figure("a", PNG, 1.5)),
    "image key": (TypeError, "key: ", lambda run: run.log_image(1, PNG, 1)),
    "image step": (TypeError, "step: ", lambda run: run.log_image("a", PNG, 1.5)),
    "matrix key": (ValueError, "key: ", lambda run: run.log_confusion_matrix("", [[1]], 1)),
    "matrix step": (TypeError, "step: ", lambda run: run.log_confusion_matrix("a", [[1]], "1")),
    "histogram key": (ValueError, "key: ", lambda run: run.log_histogram("", [1.0], 1)),
    "histogram step": (TypeError, "step: ", lambda run: run.log_histogram("a", [1.0], 0.5)),
    "text": (TypeError, "text: ", lambda run: run.log_text("a", 1)),
    "dataset": (ValueError, "digest: ", lambda run: run.log_dataset("digits", "")),
    "artifact type": (TypeError, "expected a path", lambda run: run.log_artifact(1)),
    "artifact directory": (ValueError, "path: ", lambda run: run.log_artifact(run.directory)),
    "artifact folder": (ValueError, "artifact_path: ", lambda run: run.log_artifact("file", "../elsewhere")),
    "checkpoint path": (ValueError, "path: ", lambda run: run.log_checkpoint("/elsewhere/snapshot", 1, "00", 1)),
    "checkpoint type": (TypeError, "unsupported operand", lambda run: run.log_checkpoint(1, 1, "00", 1)),
    "checkpoint step": (TypeError, "step: ", lambda run: run.log_checkpoint("snapshot", 1.5, "00", 1)),
    "removed checkpoint": (TypeError, "step: ", lambda run: run.remove_checkpoint("snapshot", 1.5)),
}


def log_everything(run: Run, file: Path) -> None:
    run.log_metrics({"a": 1.0}, 1)
    run.log_row({"a": 1.0}, 1, None, None, "other", None)
    run.log_params({"lr": 1})
    run.set_tags({"team": "a"})
    run.log_figure("a", Unrenderable(), 1)
    run.log_image("a", Unrenderable(), 1)
    run.log_confusion_matrix("a", Unrenderable(), 1)
    run.log_histogram("a", Unrenderable(), 1)
    run.log_text("a", "b")
    run.log_dataset("digits", "abc")
    run.log_artifact(file)
    run.log_checkpoint("snapshot", 1, "00", 1)
    run.remove_checkpoint("snapshot", 1)
    run.register_files("other")
    run.sync()


class Unrenderable:
    """A figure or array whose content must not be read."""

    def savefig(self, *_: Any, **__: Any) -> None:
        raise AssertionError("rendered")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("read")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("call", INVALID_CALLS)
def test_invalid_call_raises_on_every_rank(tmp_path: Path, rank: int, call: str) -> None:
    kind, match, function = INVALID_CALLS[call]
    with Run(tmp_path / "run", rank=rank, world_size=2) as run, pytest.raises(kind, match=match):
        function(run)


def test_other_rank_writes_and_warns_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Run(tmp_path / "run", rank=1, world_size=2) as run:
        log_everything(run, tmp_path / "missing")
        assert run.checkpoints() == []
    assert list(tmp_path.iterdir()) == []
    assert caplog.text == ""


def test_other_rank_is_open_from_attach_to_close(tmp_path: Path) -> None:
    run = Run(tmp_path, rank=1, world_size=2)
    run.open()
    assert not run.is_open
    with pytest.raises(RuntimeError, match="after training has started"):
        _ = run.id
    manifest = Manifest.new(tmp_path, "name")
    run.attach(manifest)
    assert run.is_open
    assert (run.id, run.name) == (manifest.id, "name")
    run.close()
    assert not run.is_open
    assert run.id == manifest.id


def test_other_rank_position_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="on rank 0 only"):
        Run(tmp_path, rank=1, world_size=2).position(1)


def test_every_call_on_other_rank_after_close_writes_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", rank=1, world_size=2)
    run.close()
    log_everything(run, tmp_path / "missing")
    run.open()
    run.rewind()
    run.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_warns_once_and_writes_nothing(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.log_metrics({"a": 1.0}, 1)
        run.log_checkpoint("snapshot", 1, "00", 1)
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        child = os.fork()
        if not child:
            code = 1
            try:
                logging.getLogger("pte_tracking").addHandler(logging.FileHandler(tmp_path / "warnings"))
                assert run.is_open
                assert [checkpoint.path for checkpoint in run.checkpoints()] == ["snapshot"]
                log_everything(run, tmp_path / "missing")
                assert run.position(1)["id"] == run.id
                run.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (warning,) = (tmp_path / "warnings").read_text().splitlines()
    assert "forked process writes nothing to the run" in warning
    assert "training process" in warning


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_that_logs_nothing_is_silent(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        child = os.fork()
        if not child:
            code = 1
            try:
                logging.getLogger("pte_tracking").addHandler(logging.FileHandler(tmp_path / "warnings"))
                run.sync()
                run.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "warnings").read_text() == ""


def test_writers_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if callable(getattr(kind, name)) and not name.startswith("_")}

    assert public(NullWriter) == public(RunWriter) | {"attach"}
