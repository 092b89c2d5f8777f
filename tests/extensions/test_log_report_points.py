"""Data points of measured values, and of several LogReports."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import pte_tracking as pte
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.metrics import summarize_metrics
from pte_tracking.extensions import Evaluator, LogReport, MicroAverage, snapshot
from pte_tracking.sinks import Metrics

Report = Callable[[int], dict[str, Any]]


def make_evaluator(every: int = 2) -> pte.Extension:
    """Return an extension that reports 100 and the iteration."""
    decorate = pte.make_extension(trigger=(every, "iteration"), priority=pte.PRIORITY_WRITER)
    return decorate(lambda manager: pte.report({"val": 100.0 + manager.iteration}))


def train(
    out: Path,
    *extensions: Any,
    iterations: int = 10,
    resume: bool = False,
    report: Report | None = None,
    **options: Any,
) -> pte.ExtensionsManager:
    options = {"sinks": ["json", "tensorboard"], "iters_per_epoch": 100, **options}
    with pte.ExtensionsManager(nn.Linear(1, 1), 1, extensions, out_dir=out, **options) as manager:
        if resume:
            manager.resume()
        while manager.iteration < iterations:
            with manager.run_iteration():
                done = manager.iteration + 1
                pte.report(report(done) if report else {"x": float(done)})
    return manager


def read_points(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the data points of the TensorBoard event files."""
    events = EventAccumulator(str(out), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag not in ("epoch", "elapsed_time")
    }


def read_log(out: Path, name: str = "log") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((out / name).read_text())
    return [{key: row[key] for key in row if key not in ("epoch", "elapsed_time")} for row in rows]


def read_events(out: Path) -> list[Metrics]:
    return [event for event, _ in read_effective(out / "journal.jsonl") if isinstance(event, Metrics)]


def read_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- measured values ---------------------------------------------------------------------------------------------------


def test_measured_value_is_a_point_at_its_step_and_a_mean_in_the_json_log(tmp_path: Path) -> None:
    manager = train(tmp_path, make_evaluator(), LogReport(trigger=(5, "iteration")))
    assert read_points(tmp_path) == {
        "x": [(5, 3.0), (10, 8.0)],
        "val": [(2, 102.0), (4, 104.0), (6, 106.0), (8, 108.0), (10, 110.0)],
    }
    assert read_log(tmp_path) == [
        {"x": 3.0, "val": 103.0, "iteration": 5},
        {"x": 8.0, "val": 108.0, "iteration": 10},
    ]
    assert [row.values for row in manager.run.rows()] == [{"x": 3.0, "val": 103.0}, {"x": 8.0, "val": 108.0}]
    summary = summarize_metrics(tmp_path).summaries["val"]
    assert (summary.last, summary.last_step, summary.lowest, summary.lowest_step) == (110.0, 10, 102.0, 2)


def test_measured_value_of_evaluator_counts_as_one_report(tmp_path: Path) -> None:
    values = iter([(1.0, 3), (5.0, 1), (4.0, 1), (4.0, 7)])
    evaluator = Evaluator(
        [0, 0], nn.Linear(1, 1), lambda batch: pte.report({"val": next(values)}), trigger=(2, "iteration")
    )
    train(tmp_path, evaluator, LogReport(trigger=(5, "iteration")), iterations=5)
    assert read_points(tmp_path) == {"x": [(5, 3.0)], "val": [(2, 2.0), (4, 4.0)]}
    assert read_log(tmp_path) == [{"x": 3.0, "val": 3.0, "iteration": 5}]


def test_measured_value_in_the_iteration_of_its_row_adds_no_event(tmp_path: Path) -> None:
    train(tmp_path, make_evaluator(5), LogReport(trigger=(5, "iteration")), sinks=["json"])
    events = read_events(tmp_path)
    assert [(event.step, event.log, event.measured) for event in events] == [(5, "log", None), (10, "log", None)]
    assert read_points(tmp_path) == {}


def test_measured_value_passes_the_keys_of_log_report(tmp_path: Path) -> None:
    train(tmp_path, make_evaluator(), LogReport("x", trigger=(5, "iteration")))
    assert read_points(tmp_path).keys() == {"x"}


def test_measured_values_resumed_within_the_interval_continue(tmp_path: Path) -> None:
    def extensions() -> list[Any]:
        return [make_evaluator(), LogReport(trigger=(5, "iteration")), snapshot(trigger=(3, "iteration"))]

    train(tmp_path, *extensions(), iterations=4)
    assert read_log(tmp_path) == [{"x": 2.5, "val": 103.0, "iteration": 4}]
    train(tmp_path, *extensions(), resume=True)
    assert read_points(tmp_path)["val"] == [(2, 102.0), (4, 104.0), (6, 106.0), (8, 108.0), (10, 110.0)]
    assert read_log(tmp_path)[0] == {"x": 3.0, "val": 103.0, "iteration": 5}


def test_measured_value_in_the_last_incomplete_interval_is_one_point(tmp_path: Path) -> None:
    train(tmp_path, make_evaluator(), LogReport(trigger=(5, "iteration")), iterations=7)
    assert read_points(tmp_path) == {"x": [(5, 3.0), (7, 6.5)], "val": [(2, 102.0), (4, 104.0), (6, 106.0)]}


def test_measured_value_of_an_inner_trigger_is_a_point_at_its_step(tmp_path: Path) -> None:
    average = MicroAverage("right", "all", "accuracy", trigger=(2, "iteration"))
    train(
        tmp_path,
        average,
        LogReport("accuracy", trigger=(5, "iteration")),
        iterations=5,
        report=lambda done: {"right": done, "all": 10},
    )
    assert read_points(tmp_path) == {"accuracy": [(2, pytest.approx(0.15)), (4, pytest.approx(0.35))]}


def test_measured_value_of_several_log_reports_is_one_point(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reports = [LogReport(trigger=(every, "iteration")) for every in (4, 5)]
    train(tmp_path, make_evaluator(), *reports, report=lambda done: {f"x{done % 2}": float(done)})
    assert read_points(tmp_path)["val"] == [(2, 102.0), (4, 104.0), (6, 106.0), (8, 108.0), (10, 110.0)]
    written = [(event.step, key) for event in read_events(tmp_path) for key in event.points if key == "val"]
    assert len(written) == len(set(written)) == 5
    assert read_log(tmp_path)[0]["val"] == 103.0
    assert read_log(tmp_path, "log_1")[0]["val"] == 103.0


def test_measured_value_goes_to_the_sinks_of_its_log_report(tmp_path: Path) -> None:
    reports = [
        LogReport(trigger=(5, "iteration"), sinks=["json"]),
        LogReport(trigger=(10, "iteration"), sinks=["tensorboard"]),
    ]
    train(tmp_path, make_evaluator(4), *reports)
    assert read_points(tmp_path) == {"x": [(10, 5.5)], "val": [(4, 104.0), (8, 108.0)]}
    assert [row.get("val") for row in read_log(tmp_path)] == [104.0, 108.0]


# -- several LogReports ------------------------------------------------------------------------------------------------


def test_log_reports_without_file_names_get_a_file_each(tmp_path: Path) -> None:
    reports = [
        LogReport("x", trigger=(5, "iteration")),
        LogReport("x", trigger=(2, "iteration"), filename="log_1"),
        LogReport("x", trigger=(10, "iteration")),
    ]
    train(tmp_path, *reports, sinks=["json"])
    assert [report.filename for report in reports] == ["log", "log_1", "log_2"]
    lengths = {name: [row["iteration"] for row in read_log(tmp_path, name)] for name in ("log", "log_1", "log_2")}
    assert lengths == {"log": [5, 10], "log_1": [2, 4, 6, 8, 10], "log_2": [10]}
    assert [row["iteration"] for row in reports[2].log] == [10]


def test_log_reports_with_equal_file_names_are_refused(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager({}, 1, [LogReport(filename="a")], out_dir=tmp_path)
    with pytest.raises(ValueError, match="filename: 'a' is the JSON log of the extension 'LogReport'"):
        manager.extend(LogReport(filename="./a"))
    manager.extend(LogReport(filename="b"))


def test_log_report_run_by_print_report_has_its_own_file(tmp_path: Path) -> None:
    own = LogReport("x", trigger=(5, "iteration"))
    train(
        tmp_path, pte.extensions.PrintReport(log_report=own), LogReport("x", trigger=(10, "iteration")), sinks=["json"]
    )
    assert [row["iteration"] for row in read_log(tmp_path)] == [10]
    assert [row["iteration"] for row in read_log(tmp_path, "log_1")] == [5, 10]


@pytest.mark.parametrize("priorities", [(100, 100), (100, 200), (200, 100)])
def test_log_reports_at_a_common_step_deliver_the_value_of_the_first_registered(
    priorities: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reports = [
        pte.ExtensionEntry(LogReport(trigger=(every, "iteration")), priority=priority)
        for every, priority in zip((5, 1), priorities, strict=True)
    ]
    train(tmp_path, *reports, report=lambda done: {"x": float(done), "y": float(done)})
    expected = [(step, {5: 3.0, 10: 8.0}.get(step, float(step))) for step in range(1, 11)]
    assert read_points(tmp_path) == {"x": expected, "y": expected}
    (message,) = read_warnings(caplog)
    assert "of 'log' and 'log_1', log 'x' at step 5" in message
    assert "LogReport(sinks=[...])" in message


def test_log_reports_with_different_sinks_do_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path / "a", LogReport(trigger=(5, "iteration")), LogReport(trigger=(1, "iteration"), sinks=["json"]))
    train(tmp_path / "b", LogReport(), LogReport(trigger=(1, "iteration")), sinks=["json"])
    assert read_points(tmp_path / "a") == {"x": [(5, 3.0), (10, 8.0)]}
    assert not read_warnings(caplog)


def test_explicit_values_of_one_key_and_step_are_all_delivered(tmp_path: Path) -> None:
    with pte.Run(tmp_path, sinks=["json", "tensorboard"]) as run:
        for value in (1.0, 2.0, 2.0):
            run.log_metrics({"x": value}, 3)
    assert read_points(tmp_path) == {"x": [(3, 1.0), (3, 2.0), (3, 2.0)]}
    assert [row["x"] for row in read_log(tmp_path)] == [1.0, 2.0, 2.0]


def test_log_reports_resumed_in_another_order_keep_their_files_and_values(tmp_path: Path) -> None:
    def make(*, is_reversed: bool = False) -> list[Any]:
        logs = [LogReport("a", (3, "iteration")), LogReport("b", (4, "iteration"))]
        return [*(reversed(logs) if is_reversed else logs), snapshot(trigger=(5, "iteration"))]

    def report(done: int) -> dict[str, Any]:
        return {"a": float(done), "b": 10.0 * done}

    train(tmp_path, *make(), iterations=7, report=report)
    train(tmp_path, *make(is_reversed=True), iterations=12, report=report, resume=True)
    assert [(row["iteration"], row["a"]) for row in read_log(tmp_path)] == [(3, 2), (6, 5), (9, 8), (12, 11)]
    assert [(row["iteration"], row["b"]) for row in read_log(tmp_path, "log_1")] == [(4, 25), (8, 65), (12, 105)]


def test_log_reports_without_file_names_read_their_own_rows_before_the_training(tmp_path: Path) -> None:
    def make() -> list[Any]:
        return [LogReport("x", (5, "iteration")), LogReport("x", (2, "iteration")), snapshot(trigger=(10, "iteration"))]

    train(tmp_path, *make())
    reports = make()
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 1, reports, out_dir=tmp_path, iters_per_epoch=100)
    manager.resume()
    assert [len(report.log) for report in reports[:2]] == [2, 5]
