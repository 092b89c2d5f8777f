"""Reading of metrics from the run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking._store.metrics import read_points, summarize_metrics
from pte_tracking.extensions import LogReport


def train(directory: Path, *reports: LogReport) -> None:
    """Train for 9 iterations, each of which reports its number."""
    with pte.ExtensionsManager({}, 1, reports, iters_per_epoch=9, out_dir=directory, sinks=["json"]) as manager:
        while manager.iteration < 9:
            with manager.run_iteration():
                pte.report({"loss": manager.iteration + 1})


def read_curve(directory: Path, key: str = "loss") -> list[tuple[int, Any]]:
    return [(event.step, points[key]) for event, points in read_points(directory) if key in points]


def every(iterations: int, **options: Any) -> LogReport:
    return LogReport(trigger=(iterations, "iteration"), **options)


@pytest.mark.parametrize("is_first", [False, True])
def test_points_of_log_that_no_sink_receives_are_omitted(is_first: bool, tmp_path: Path) -> None:
    reports = [every(3), every(4, sinks=[])]
    train(tmp_path, *(reversed(reports) if is_first else reports))
    assert read_curve(tmp_path) == [(3, 2), (6, 5), (9, 8)]
    summary = summarize_metrics(tmp_path).summaries["loss"]
    assert (summary.last, summary.last_step, summary.lowest, summary.highest) == (8, 9, 2, 8)


def test_points_of_run_whose_only_log_no_sink_receives_are_read(tmp_path: Path) -> None:
    train(tmp_path, every(4, sinks=[]))
    assert read_curve(tmp_path) == [(4, 2.5), (8, 6.5), (9, 9)]


def test_points_of_metric_that_no_sink_receives_follow_the_others(tmp_path: Path) -> None:
    train(tmp_path, every(4, sinks=[], postprocess=lambda row: row.update(extra=1.0)), every(3))
    assert read_curve(tmp_path) == [(3, 2), (6, 5), (9, 8)]
    assert read_curve(tmp_path, "extra") == [(4, 1.0), (8, 1.0), (9, 1.0)]
    steps = [event.step for event, points in read_points(tmp_path) if points]
    assert steps == [3, 6, 9, 4, 8, 9]


def test_points_of_several_log_reports_have_the_first_value_of_a_step(tmp_path: Path) -> None:
    train(tmp_path, every(3), every(9))
    assert read_curve(tmp_path) == [(3, 2), (6, 5), (9, 8)]
    assert summarize_metrics(tmp_path).summaries["loss"].last == 8


def test_points_of_explicit_calls_are_all_read(tmp_path: Path) -> None:
    with pte.Run(tmp_path, sinks=["json"]) as run:
        run.log_metrics({"loss": 1.0}, 1)
        run.log_metrics({"loss": 2.0}, 1)
    assert read_curve(tmp_path) == [(1, 1.0), (1, 2.0)]


def test_last_step_includes_rows_that_no_sink_receives(tmp_path: Path) -> None:
    reports = [every(3), every(4, sinks=[])]
    with pte.ExtensionsManager({}, 1, reports, iters_per_epoch=9, out_dir=tmp_path, sinks=["json"]) as manager:
        while manager.iteration < 5:
            with manager.run_iteration():
                pte.report({"loss": manager.iteration + 1})
        metrics = summarize_metrics(tmp_path)
    assert (metrics.step, metrics.summaries["loss"].last_step) == (4, 3)
