"""Reading of runs on disk with open_runs()."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import pte_tracking as pte
from pte_tracking import extensions


def write_run(directory: Path, lr: float, rows: int = 3, **options: Any) -> None:
    with pte.Run(directory, params={"optim": {"lr": lr}}, tags={"team": "vision"}, **options) as run:
        for step in range(1, rows + 1):
            run.log_metrics({"loss": lr * step}, step, epoch=step / 2)


def test_open_runs_finds_runs_at_any_depth_in_order_of_start(tmp_path: Path) -> None:
    for number, name in enumerate(["b", "deep/er/a", "c"]):
        write_run(tmp_path / name, 0.1 * number)
    runs = pte.open_runs(tmp_path)
    assert [run.directory.name for run in runs] == ["b", "a", "c"]
    assert [run.params for run in runs] == [{"optim/lr": 0.0}, {"optim/lr": 0.1}, {"optim/lr": 0.2}]
    assert [(run.status, run.tags, len(run.id)) for run in runs] == [("FINISHED", {"team": "vision"}, 32)] * 3
    assert (runs[2].metrics["loss"].last, runs[2].metrics["loss"].lowest_step) == (0.2 * 3, 1)


def test_open_runs_includes_archived_run(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        write_run(tmp_path / "run", lr)
    assert [run.params["optim/lr"] for run in pte.open_runs(tmp_path)] == [0.1, 0.2]


def test_open_runs_damaged_run_is_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path / "good", 0.1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert [run.directory.name for run in pte.open_runs(tmp_path)] == ["good"]
    assert str(tmp_path / "bad") in caplog.text


def test_open_runs_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"directory: '.*missing' is not a directory"):
        pte.open_runs(tmp_path / "missing")


def test_running_run_is_read_without_lock(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"loss": 1.0}, 1)
        (stored,) = pte.open_runs(tmp_path)
        assert (stored.status, len(stored.frame())) == ("RUNNING", 1)
        run.log_metrics({"loss": 0.5}, 2)
        assert len(stored.frame()) == 2
    assert stored.status == "FINISHED"


def train(directory: Path) -> None:
    """Train with a log every 2 iterations and an evaluation every 3."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    @pte.make_extension(trigger=(3, "iteration"))
    def evaluate(manager: pte.Manager) -> None:
        pte.report({"val/loss": manager.iteration})

    own = [evaluate, extensions.LogReport(trigger=(2, "iteration")), extensions.snapshot(trigger=(3, "iteration"))]
    manager = pte.ExtensionsManager(model, 2, own, optimizers=optimizer, out_dir=directory)
    with manager:
        for batch in manager.batches(DataLoader(torch.ones(4, 1))):
            with manager.run_iteration():
                loss = model(batch).square().mean()
                loss.backward()
                optimizer.step()
                pte.report({"loss": manager.iteration})


def test_frame_of_rows_equals_json_log(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"loss": 1, "time": 7.0}, 1)
        run.log_metrics({"loss": 0.5, "late": 2.0}, 2, epoch=1, elapsed_time=3.5)
    frame = pte.open_runs(tmp_path)[0].frame()
    assert list(frame.columns) == ["epoch", "iteration", "elapsed_time", "time", "loss", "metrics/time", "late"]
    assert frame["loss"].tolist() == [row["loss"] for row in json.loads((tmp_path / "log").read_text())]
    assert frame["epoch"].tolist()[1:] == [1.0]
    assert frame[["epoch", "elapsed_time", "late"]].isna().to_numpy().tolist() == [[True] * 3, [False] * 3]


def test_frame_contains_no_superseded_rows(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"loss": 1.0}, 1)
        position = run.position(1)
        run.log_metrics({"loss": 2.0}, 2)
    run = pte.Run(tmp_path)
    run.open(at=position)
    run.rewind()
    run.log_metrics({"loss": 20.0}, 2)
    run.close()
    (stored,) = pte.open_runs(tmp_path)
    assert stored.frame()["loss"].tolist() == [1.0, 20.0]
    assert stored.frame("points")["value"].tolist() == [1.0, 20.0]


def test_frame_of_points_has_measured_values_at_their_own_steps(tmp_path: Path) -> None:
    train(tmp_path)
    (stored,) = pte.open_runs(tmp_path)
    points = stored.frame("points")
    assert points[points["key"] == "val/loss"][["step", "value"]].to_numpy().tolist() == [[3, 3], [6, 6]]
    assert stored.frame()["iteration"].tolist() == [2, 4, 6, 8]
    assert [checkpoint.step for checkpoint in stored.checkpoints] == [3, 6, 8]


def test_points_and_metrics_omit_the_log_of_a_printed_table(tmp_path: Path) -> None:
    own = [
        extensions.LogReport(trigger=(2, "iteration")),
        extensions.PrintReport(["loss"], log_report=extensions.LogReport(sinks=[])),
    ]
    manager = pte.ExtensionsManager({}, 1, own, out_dir=tmp_path, sinks=["json"])
    for value in manager.iterations([1.0, 2.0, 3.0, 4.0]):
        pte.report({"loss": value})
    (stored,) = pte.open_runs(tmp_path)
    assert stored.frame("points")[["step", "value"]].to_numpy().tolist() == [[2, 1.5], [4, 3.5]]
    assert (stored.metrics["loss"].last, stored.metrics["loss"].highest) == (3.5, 3.5)
    assert stored.frame(log="log_1")["loss"].tolist() == [2.5]


@pytest.mark.parametrize("kind", ["rows", "points"])
def test_frames_of_both_libraries_are_equal(kind: Any, tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"count": 1, "loss": 0.5}, 1)
        run.log_metrics({"count": 1.5, "loss": float("inf"), "late": -(2**60)}, 2, epoch=0.5)
    (stored,) = pte.open_runs(tmp_path)
    pandas_frame, polars_frame = stored.frame(kind), stored.frame(kind, library="polars")
    assert list(pandas_frame.columns) == polars_frame.columns
    expected = [[_normalize(value) for value in row] for row in pandas_frame.to_numpy().tolist()]
    assert [[_normalize(value) for value in row] for row in polars_frame.rows()] == expected


def _normalize(value: Any) -> Any:
    return None if value is None or (isinstance(value, float) and math.isnan(value)) else value


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize(
    ("kind", "columns"),
    [("rows", ["epoch", "iteration", "elapsed_time", "time"]), ("points", ["key", "step", "value", "epoch", "time"])],
)
def test_frame_of_run_without_metrics_has_columns(kind: Any, columns: list[str], library: Any, tmp_path: Path) -> None:
    write_run(tmp_path, 0.1, rows=0)
    frame = pte.open_runs(tmp_path)[0].frame(kind, library=library)
    assert (list(frame.columns), len(frame)) == (columns, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "row"}, "kind: expected 'rows' or 'points', got 'row'"),
        ({"library": "arrow"}, "library: expected 'pandas' or 'polars', got 'arrow'"),
        ({"log": "lgo"}, "log: the run has no rows in 'lgo'. Its logs: 'log'."),
    ],
)
def test_frame_wrong_argument_is_named(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_run(tmp_path, 0.1)
    with pytest.raises(ValueError, match=message):
        pte.open_runs(tmp_path)[0].frame(**arguments)
