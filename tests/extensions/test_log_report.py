"""The log: its rows, its files, its way through a snapshot, and that nothing grows with it."""

from __future__ import annotations

import io
import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pte_tracking as pte
from pte_tracking.extensions import LogReport, PrintReport

ThroughAFile = Callable[[dict[str, Any]], dict[str, Any]]


def manager_of(out: Path, *extensions: Any, **options: Any) -> pte.ExtensionsManager:
    options = {"iters_per_epoch": 4, "out_dir": out, "sinks": ["json"], **options}
    return pte.ExtensionsManager({}, 10_000, extensions, **options)


def train(manager: pte.ExtensionsManager, until: int) -> None:
    while manager.iteration < until:
        with manager.run_iteration():
            done = manager.iteration + 1
            pte.report({"loss": 1 / done, "done": done})
            if done % 3 == 0:
                pte.report({"rare": done})


def rows(out: Path, name: str = "log") -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    loaded: list[dict[str, Any]] = json.loads((out / name).read_text(), parse_constant=refuse)
    return loaded


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "elapsed_time"} for row in rows]


def test_a_row_holds_the_means_of_its_interval_and_when_it_was(tmp_path: Path) -> None:
    with manager_of(tmp_path, LogReport()) as manager:
        train(manager, 8)
    first, second = rows(tmp_path)
    assert first.keys() == {"loss", "done", "rare", "epoch", "iteration", "elapsed_time"}
    assert (first["epoch"], first["iteration"]) == (1, 4)
    assert (second["epoch"], second["iteration"]) == (2, 8)
    assert first["loss"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert second["done"] == 6.5
    assert (first["rare"], second["rare"]) == (3, 6)
    assert 0 < first["elapsed_time"] < second["elapsed_time"]


def test_the_file_is_whole_after_every_row(tmp_path: Path) -> None:
    with manager_of(tmp_path, LogReport()) as manager:
        for epoch in range(1, 4):
            train(manager, 4 * epoch)
            assert [row["epoch"] for row in rows(tmp_path)] == list(range(1, epoch + 1))


def test_rows_come_also_when_nothing_was_reported(tmp_path: Path) -> None:
    with manager_of(tmp_path, LogReport()) as manager:
        for _ in range(4):
            with manager.run_iteration():
                pass
    assert without_time(rows(tmp_path)) == [{"epoch": 1, "iteration": 4}]


def test_a_last_interval_that_is_not_over_is_not_logged(tmp_path: Path) -> None:
    with manager_of(tmp_path, LogReport()) as manager:
        train(manager, 7)
    assert [row["iteration"] for row in rows(tmp_path)] == [4]


@pytest.mark.parametrize("keys", ["loss", ["loss", "never"], iter(["loss"])])
def test_keys_choose_what_is_logged(tmp_path: Path, keys: Any) -> None:
    with manager_of(tmp_path, LogReport(keys)) as manager:
        train(manager, 8)
    assert [row.keys() for row in rows(tmp_path)] == [{"loss", "epoch", "iteration", "elapsed_time"}] * 2


def test_its_two_triggers_say_what_counts_and_when_rows_are_made(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    manager.extend(LogReport("done", trigger=(4, "iteration")), trigger=(2, "iteration"))
    train(manager, 8)
    manager.close()
    assert [row["done"] for row in rows(tmp_path)] == [3, 7]


def test_postprocess_changes_the_row(tmp_path: Path) -> None:
    def postprocess(row: dict[str, Any]) -> None:
        row["perplexity"] = torch.tensor(row.pop("loss")).exp()
        row["epoch"] += 0.5
        del row["elapsed_time"]

    report = LogReport("loss", postprocess=postprocess)
    with manager_of(tmp_path, report) as manager:
        train(manager, 4)
    assert rows(tmp_path) == [{"perplexity": pytest.approx(1.6835, abs=1e-4), "epoch": 1.5, "iteration": 4}]
    assert report.log == rows(tmp_path)


def test_postprocess_that_makes_no_number_is_told(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, LogReport(postprocess=lambda row: row.update(note="good")))
    with pytest.raises(TypeError, match=r"values\['note'\]: expected a real number, got 'good' of type str"):
        train(manager, 4)


def test_several_reports_have_their_own_files(tmp_path: Path) -> None:
    often = LogReport("done", trigger=(2, "iteration"), filename="logs/often")
    with manager_of(tmp_path, often, LogReport("loss")) as manager:
        train(manager, 4)
    assert [row["done"] for row in rows(tmp_path, "logs/often")] == [1.5, 3.5]
    assert [row.keys() for row in rows(tmp_path)] == [{"loss", "epoch", "iteration", "elapsed_time"}]
    assert often.log == rows(tmp_path, "logs/often")


def test_sinks_choose_who_gets_the_rows(tmp_path: Path) -> None:
    silent = LogReport(filename="silent", sinks=[])
    with manager_of(tmp_path, silent, LogReport(sinks=["json"])) as manager:
        train(manager, 4)
    assert not (tmp_path / "silent").exists()
    assert len(rows(tmp_path)) == len(silent.log) == 1


def test_called_before_training_its_first_row_is_of_iteration_0(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    manager.extend(lambda _: pte.report({"loss": 2.0}), "first", (9, "epoch"), 300, call_before_training=True)
    manager.extend(LogReport("loss"), call_before_training=True)
    train(manager, 4)
    manager.close()
    assert without_time(rows(tmp_path))[0] == {"loss": 2.0, "epoch": 0, "iteration": 0}


def test_a_loop_without_epochs_has_none_in_its_rows(tmp_path: Path) -> None:
    report = LogReport("done", trigger=(2, "iteration"))
    manager = manager_of(tmp_path, report, iters_per_epoch=None, stop_trigger=(4, "iteration"))
    train(manager, 4)
    assert without_time(rows(tmp_path)) == [{"done": 1.5, "iteration": 2}, {"done": 3.5, "iteration": 4}]
    assert report.log == rows(tmp_path)


def test_numbers_that_are_not_finite_are_strict_json_and_survive_in_the_record(tmp_path: Path) -> None:
    report = LogReport(trigger=(1, "iteration"))
    values = [math.nan, math.inf, -math.inf]
    with manager_of(tmp_path, report) as manager:
        for value in values:
            with manager.run_iteration():
                pte.report({"loss": value})
    assert [row["loss"] for row in rows(tmp_path)] == [None, None, None]
    assert [repr(row["loss"]) for row in report.log] == ["nan", "inf", "-inf"]


def test_the_log_is_read_back_as_rows_and_as_a_table(tmp_path: Path) -> None:
    report = LogReport()
    with manager_of(tmp_path, report) as manager:
        train(manager, 8)
        during = report.log
    assert report.log == during == rows(tmp_path)
    table = report.to_dataframe()
    assert list(table["iteration"]) == [4, 8]
    assert set(table.columns) == {"loss", "done", "rare", "epoch", "iteration", "elapsed_time"}


def test_the_log_of_no_training_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="the training has not begun"):
        LogReport().log


def test_subscribers_get_each_row_as_it_is_made(tmp_path: Path) -> None:
    report = LogReport()
    got: list[dict[str, Any]] = []
    report.subscribe(got.append)
    report.subscribe(got.append)
    with manager_of(tmp_path, report) as manager:
        train(manager, 7)
        assert [row["iteration"] for row in got] == [4]
        train(manager, 8)
    assert got == report.log


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_resumed_log_is_that_of_an_uninterrupted_training(
    tmp_path: Path, cut: int, through_a_file: ThroughAFile
) -> None:
    with manager_of(tmp_path / "whole", LogReport(trigger=(3, "iteration"))) as manager:
        train(manager, 12)
    killed = manager_of(tmp_path / "parts", LogReport(trigger=(3, "iteration")))
    train(killed, cut)
    state = through_a_file(killed.state_dict())
    train(killed, cut + 2)  # rows that the resumed training makes again
    killed.close("KILLED")
    report = LogReport(trigger=(3, "iteration"))
    with manager_of(tmp_path / "parts", report) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 12)
    assert without_time(rows(tmp_path / "parts")) == without_time(rows(tmp_path / "whole"))
    assert without_time(report.log) == without_time(rows(tmp_path / "whole"))


def test_a_snapshot_does_not_grow_with_the_log(tmp_path: Path) -> None:
    def size() -> int:
        file = io.BytesIO()
        torch.save(report.state_dict(), file)
        return len(file.getvalue())

    report = LogReport(trigger=(1, "iteration"))
    with manager_of(tmp_path, report) as manager:
        train(manager, 10)
        before = size()
        train(manager, 1000)
        assert size() == before


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    out = io.StringIO()
    report = LogReport(trigger=(1, "iteration"))
    with manager_of(tmp_path, report, PrintReport(out=out)) as manager:
        train(manager, 2000)
        out.truncate(0)
        tracemalloc.start()
        try:
            train(manager, 2100)
            early = tracemalloc.get_traced_memory()[0]
            out.truncate(0)
            train(manager, 4000)
            out.truncate(0)
            assert tracemalloc.get_traced_memory()[0] - early < 50_000
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("filename", ["", ".", "/tmp/log", "../log", "logs/../../log"])
def test_a_file_outside_the_runs_directory_is_refused(filename: str) -> None:
    with pytest.raises(ValueError, match="filename: expected a file in the run's directory, such as 'log', got"):
        LogReport(filename=filename)


@pytest.mark.parametrize("filename", ["journal.jsonl", "run.json", "delivery/log", "checkpoints.json", ".lock"])
def test_the_records_own_files_are_not_taken(filename: str) -> None:
    with pytest.raises(ValueError, match="is where the record of the run keeps its own"):
        LogReport(filename=filename)


def test_templates_and_none_are_told_apart_from_file_names() -> None:
    with pytest.raises(ValueError, match=r"'log_{iteration}' is no template; all rows of a log go to one file"):
        LogReport(filename="log_{iteration}")
    with pytest.raises(TypeError, match="filename: expected a string such as 'log', got None"):
        LogReport(filename=None)  # type: ignore[arg-type]


def test_sinks_must_be_names_that_exist() -> None:
    with pytest.raises(TypeError, match=r"sinks: expected a list of names, such as \['json', 'mlflow'\], got 'json'"):
        LogReport(sinks="json")
    with pytest.raises(ValueError, match="no sink is called 'tensorbord'; installed are"):
        LogReport(sinks=["tensorbord"])
    assert LogReport(sinks=["mlflow-2"])
