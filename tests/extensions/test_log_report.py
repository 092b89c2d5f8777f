"""Tests of LogReport: rows, files, resume, and bounded memory."""

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

SaveAndLoad = Callable[[dict[str, Any]], dict[str, Any]]


def make_manager(out: Path, *extensions: Any, **options: Any) -> pte.ExtensionsManager:
    options = {"iters_per_epoch": 4, "out_dir": out, "sinks": ["json"], **options}
    return pte.ExtensionsManager({}, 10_000, extensions, **options)


def train(manager: pte.ExtensionsManager, until: int) -> None:
    while manager.iteration < until:
        with manager.run_iteration():
            done = manager.iteration + 1
            pte.report({"loss": 1 / done, "done": done})
            if done % 3 == 0:
                pte.report({"rare": done})


def read_rows(out: Path, name: str = "log") -> list[dict[str, Any]]:
    def reject_constant(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    loaded: list[dict[str, Any]] = json.loads((out / name).read_text(), parse_constant=reject_constant)
    return loaded


def drop_elapsed_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "elapsed_time"} for row in rows]


def test_log_report_row_contains_interval_means_and_counters(tmp_path: Path) -> None:
    with make_manager(tmp_path, LogReport()) as manager:
        train(manager, 8)
    first, second = read_rows(tmp_path)
    assert first.keys() == {"loss", "done", "rare", "epoch", "iteration", "elapsed_time"}
    assert (first["epoch"], first["iteration"]) == (1, 4)
    assert (second["epoch"], second["iteration"]) == (2, 8)
    assert first["loss"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert second["done"] == 6.5
    assert (first["rare"], second["rare"]) == (3, 6)
    assert 0 < first["elapsed_time"] < second["elapsed_time"]


def test_log_report_file_is_complete_after_every_row(tmp_path: Path) -> None:
    with make_manager(tmp_path, LogReport()) as manager:
        for epoch in range(1, 4):
            train(manager, 4 * epoch)
            assert [row["epoch"] for row in read_rows(tmp_path)] == list(range(1, epoch + 1))


def test_log_report_empty_observation_still_writes_row(tmp_path: Path) -> None:
    with make_manager(tmp_path, LogReport()) as manager:
        for _ in range(4):
            with manager.run_iteration():
                pass
    assert drop_elapsed_time(read_rows(tmp_path)) == [{"epoch": 1, "iteration": 4}]


@pytest.mark.parametrize(
    "end",
    [
        lambda manager: manager.close(),
        lambda manager: manager.run.close(),
        lambda manager: manager.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None),
        lambda manager: manager.__exit__(ValueError, ValueError("failed"), None),
    ],
)
def test_log_report_incomplete_interval_is_the_last_row(end: Any, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    report = LogReport(["done", "rare"])
    manager = make_manager(tmp_path, PrintReport(out=io.StringIO()), report)
    report.subscribe(rows.append)
    train(manager, 7)
    end(manager)
    written = drop_elapsed_time(read_rows(tmp_path))
    assert written[1:] == [{"done": 6, "rare": 6, "epoch": 1, "iteration": 7}]
    assert drop_elapsed_time(rows) == written


def test_log_report_complete_interval_or_no_value_adds_no_last_row(tmp_path: Path) -> None:
    with make_manager(tmp_path / "a", LogReport()) as manager:
        train(manager, 8)
    with make_manager(tmp_path / "b", LogReport("loss")) as manager:
        train(manager, 4)
        with manager.run_iteration():
            pte.report({"other": 1.0})
    assert [row["iteration"] for row in read_rows(tmp_path / "a")] == [4, 8]
    assert [row["iteration"] for row in read_rows(tmp_path / "b")] == [4]


def test_log_report_resumed_run_replaces_incomplete_last_row(tmp_path: Path) -> None:
    def make() -> pte.ExtensionsManager:
        return make_manager(tmp_path, LogReport(), pte.extensions.snapshot(trigger=(3, "iteration")))

    with make() as manager:
        train(manager, 7)
    assert [row["iteration"] for row in read_rows(tmp_path)] == [4, 7]
    with make() as manager:
        manager.resume()
        train(manager, 8)
    assert [(row["iteration"], row["done"]) for row in read_rows(tmp_path)] == [(4, 2.5), (8, 6.5)]


def test_log_report_before_training_logs_a_row_of_step_0(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    report = LogReport(["val/x", "done"])
    report.subscribe(rows.append)
    manager = make_manager(tmp_path)
    evaluate = pte.make_extension(trigger=(1, "epoch"), priority=pte.PRIORITY_WRITER)(
        lambda manager: pte.report({"val/x": float(manager.iteration), "other": 1.0})
    )
    manager.extend(evaluate, name="evaluate", call_before_training=True)
    manager.extend(report, call_before_training=True)
    with manager:
        train(manager, 4)
    assert (
        drop_elapsed_time(rows)
        == drop_elapsed_time(read_rows(tmp_path))
        == [
            {"val/x": 0.0, "epoch": 0, "iteration": 0},
            {"done": 2.5, "val/x": 4.0, "epoch": 1, "iteration": 4},
        ]
    )


@pytest.mark.parametrize("keys", ["loss", ["loss", "never"], iter(["loss"])])
def test_log_report_keys_select_logged_metrics(tmp_path: Path, keys: Any) -> None:
    with make_manager(tmp_path, LogReport(keys)) as manager:
        train(manager, 8)
    assert [row.keys() for row in read_rows(tmp_path)] == [{"loss", "epoch", "iteration", "elapsed_time"}] * 2


def test_log_report_selected_key_that_is_never_reported_warns_once_at_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with make_manager(tmp_path, LogReport(["loss", "los", "epoch", "rare"])) as manager:
        train(manager, 8)
        assert caplog.messages == []
    (message,) = caplog.messages
    expected = "LogReport: keys: 'los' was not reported so far. Reported keys: 'loss', 'done'. Did you mean 'loss'?"
    assert message == expected


def test_log_report_misspelled_key_warns_at_first_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with make_manager(tmp_path, LogReport(["train/accurcy", "val/loss"])) as manager:
        for _ in range(4):
            with manager.run_iteration():
                pte.report({"train/accuracy": 1.0})
        (message,) = caplog.messages
        assert "'train/accurcy' was not reported so far" in message
        assert message.endswith("Did you mean 'train/accuracy'?")


class EveryFour(LogReport):
    trigger = (4, "iteration")


@pytest.mark.parametrize(
    "add",
    [
        lambda manager: manager.extend(LogReport("done"), trigger=(4, "iteration")),
        lambda manager: manager.extend(pte.ExtensionEntry(LogReport("done"), trigger=(4, "iteration")), name="log"),
        lambda manager: manager.extend(
            pte.ExtensionEntry(LogReport("done"), trigger=(3, "iteration")), trigger=(4, "iteration")
        ),
        lambda manager: manager.extend(EveryFour("done")),
        lambda manager: manager.extend(pte.ExtensionEntry(EveryFour("done", trigger=(1, "iteration")))),
    ],
)
def test_log_report_given_trigger_ends_the_interval(add: Any, tmp_path: Path) -> None:
    manager = make_manager(tmp_path, iters_per_epoch=3)
    add(manager)
    train(manager, 8)
    manager.close()
    assert [row["done"] for row in read_rows(tmp_path)] == [2.5, 6.5]


def test_log_report_postprocess_changes_row(tmp_path: Path) -> None:
    def postprocess(row: dict[str, Any]) -> None:
        row["perplexity"] = torch.tensor(row.pop("loss")).exp()
        row["epoch"] += 0.5
        del row["elapsed_time"]

    report = LogReport("loss", postprocess=postprocess)
    with make_manager(tmp_path, report) as manager:
        train(manager, 4)
    assert read_rows(tmp_path) == [{"perplexity": pytest.approx(1.6835, abs=1e-4), "epoch": 1.5, "iteration": 4}]
    assert report.log == read_rows(tmp_path)


def test_log_report_non_numeric_postprocess_result_raises_type_error(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, LogReport(postprocess=lambda row: row.update(note="good")))
    with pytest.raises(TypeError, match=r"values\['note'\]: expected a real number, got 'good' of type str"):
        train(manager, 4)


def test_log_report_multiple_reports_write_separate_files(tmp_path: Path) -> None:
    often = LogReport("done", trigger=(2, "iteration"), filename="logs/often")
    with make_manager(tmp_path, often, LogReport("loss")) as manager:
        train(manager, 4)
    assert [row["done"] for row in read_rows(tmp_path, "logs/often")] == [1.5, 3.5]
    assert [row.keys() for row in read_rows(tmp_path)] == [{"loss", "epoch", "iteration", "elapsed_time"}]
    assert often.log == read_rows(tmp_path, "logs/often")


def test_log_report_sinks_option_selects_destinations(tmp_path: Path) -> None:
    silent = LogReport(filename="silent", sinks=[])
    with make_manager(tmp_path, silent, LogReport(sinks=["json"])) as manager:
        train(manager, 4)
    assert not (tmp_path / "silent").exists()
    assert len(read_rows(tmp_path)) == len(silent.log) == 1


def test_log_report_call_before_training_starts_at_iteration_zero(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.extend(lambda _: pte.report({"loss": 2.0}), "first", (9, "epoch"), 300, call_before_training=True)
    manager.extend(LogReport("loss"), call_before_training=True)
    train(manager, 4)
    manager.close()
    assert drop_elapsed_time(read_rows(tmp_path))[0] == {"loss": 2.0, "epoch": 0, "iteration": 0}


def test_log_report_unset_epoch_length_omits_epoch(tmp_path: Path) -> None:
    report = LogReport("done", trigger=(2, "iteration"))
    manager = make_manager(tmp_path, report, iters_per_epoch=None, stop_trigger=(4, "iteration"))
    train(manager, 4)
    assert drop_elapsed_time(read_rows(tmp_path)) == [{"done": 1.5, "iteration": 2}, {"done": 3.5, "iteration": 4}]
    assert report.log == read_rows(tmp_path)


def test_log_report_non_finite_values_are_null_in_file_only(tmp_path: Path) -> None:
    report = LogReport(trigger=(1, "iteration"))
    values = [math.nan, math.inf, -math.inf]
    with make_manager(tmp_path, report) as manager:
        for value in values:
            with manager.run_iteration():
                pte.report({"loss": value})
    assert [row["loss"] for row in read_rows(tmp_path)] == [None, None, None]
    assert [repr(row["loss"]) for row in report.log] == ["nan", "inf", "-inf"]


def test_log_report_log_and_dataframe_return_rows(tmp_path: Path) -> None:
    report = LogReport()
    with make_manager(tmp_path, report) as manager:
        train(manager, 8)
        during = report.log
    assert report.log == during == read_rows(tmp_path)
    table = report.to_dataframe()
    assert list(table["iteration"]) == [4, 8]
    assert set(table.columns) == {"loss", "done", "rare", "epoch", "iteration", "elapsed_time"}


def test_log_report_log_without_manager_raises_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="not available before the extension is passed"):
        LogReport().log


def test_log_report_subscribers_receive_each_row_once(tmp_path: Path) -> None:
    report = LogReport()
    received: list[dict[str, Any]] = []
    report.subscribe(received.append)
    report.subscribe(received.append)
    with make_manager(tmp_path, report) as manager:
        train(manager, 7)
        assert [row["iteration"] for row in received] == [4]
        train(manager, 8)
    assert received == report.log


@pytest.mark.parametrize("cut", range(1, 10))
def test_log_report_resumed_matches_uninterrupted_run(tmp_path: Path, cut: int, save_and_load: SaveAndLoad) -> None:
    with make_manager(tmp_path / "whole", LogReport(trigger=(3, "iteration"))) as manager:
        train(manager, 12)
    killed = make_manager(tmp_path / "parts", LogReport(trigger=(3, "iteration")))
    train(killed, cut)
    state = save_and_load(killed.state_dict())
    train(killed, cut + 2)  # The resumed training repeats these rows.
    killed.close("KILLED")
    report = LogReport(trigger=(3, "iteration"))
    with make_manager(tmp_path / "parts", report) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 12)
    assert drop_elapsed_time(read_rows(tmp_path / "parts")) == drop_elapsed_time(read_rows(tmp_path / "whole"))
    assert drop_elapsed_time(report.log) == drop_elapsed_time(read_rows(tmp_path / "whole"))


def test_log_report_snapshot_size_is_independent_of_log_length(tmp_path: Path) -> None:
    def size() -> int:
        file = io.BytesIO()
        torch.save(report.state_dict(), file)
        return len(file.getvalue())

    report = LogReport(trigger=(1, "iteration"))
    with make_manager(tmp_path, report) as manager:
        train(manager, 10)
        before = size()
        train(manager, 1000)
        assert size() == before


def test_log_report_memory_is_independent_of_log_length(tmp_path: Path) -> None:
    out = io.StringIO()
    report = LogReport(trigger=(1, "iteration"))
    with make_manager(tmp_path, report, PrintReport(out=out)) as manager:
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
def test_log_report_filename_outside_run_directory_raises_value_error(filename: str) -> None:
    with pytest.raises(ValueError, match="filename: expected a file in the run directory, such as 'log', got"):
        LogReport(filename=filename)


@pytest.mark.parametrize(
    "filename", ["journal.jsonl", "run.json", "delivery/log", "checkpoints.json", ".lock", "provenance/a"]
)
def test_log_report_reserved_filename_raises_value_error(filename: str) -> None:
    with pytest.raises(ValueError, match="is reserved for files of the run"):
        LogReport(filename=filename)


def test_log_report_template_filename_raises_error() -> None:
    with pytest.raises(
        ValueError, match=r"filename: expected a name without placeholders, such as 'log', got 'log_{iteration}'"
    ):
        LogReport(filename="log_{iteration}")


def test_log_report_invalid_sinks_raise_errors() -> None:
    with pytest.raises(TypeError, match=r"sinks: expected a list of names, such as \['json', 'mlflow'\], got 'json'"):
        LogReport(sinks="json")
    with pytest.raises(ValueError, match="'tensorbord'"):
        LogReport(sinks=["tensorbord"])
    assert LogReport(sinks=["mlflow-2"])


@pytest.mark.parametrize("keys", [(1, "epoch"), [["loss"]]])
def test_log_report_keys_that_are_no_strings_raise_type_error(keys: Any) -> None:
    with pytest.raises(TypeError, match=r"keys: expected keys of metrics, .* Pass an interval as trigger=\."):
        LogReport(keys)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("is_owned", [False, True])
def test_log_report_collects_iteration_in_which_an_earlier_extension_fails(
    is_owned: bool, error: type[BaseException], tmp_path: Path
) -> None:
    @pte.make_extension(trigger=(6, "iteration"), priority=pte.PRIORITY_WRITER)
    def fail(manager: pte.Manager) -> None:
        raise error

    report = LogReport("done")
    logs = [PrintReport(log_report=report, out=io.StringIO())] if is_owned else [report, PrintReport(out=io.StringIO())]
    with pytest.raises(error), make_manager(tmp_path, fail, *logs) as manager:
        train(manager, 8)
    assert [(row["iteration"], row["done"]) for row in read_rows(tmp_path)] == [(4, 2.5), (6, 5.5)]


def test_log_report_before_training_does_not_run_again_after_a_resume(tmp_path: Path) -> None:
    def make(out: Path) -> pte.ExtensionsManager:
        manager = make_manager(out, pte.extensions.snapshot())
        evaluate = pte.make_extension(trigger=(4, "iteration"), priority=pte.PRIORITY_WRITER)(
            lambda manager: pte.report({"val/x": float(manager.iteration)})
        )
        manager.extend(evaluate, name="evaluate", call_before_training=True)
        manager.extend(LogReport(["val/x", "done"]), call_before_training=True)
        return manager

    with make(tmp_path / "whole") as manager:
        train(manager, 8)
    with make(tmp_path / "parts") as manager:
        train(manager, 5)
    with make(tmp_path / "parts") as manager:
        manager.resume()
        train(manager, 8)
    whole, parts = (drop_elapsed_time(read_rows(tmp_path / name)) for name in ("whole", "parts"))
    assert [row["iteration"] for row in parts] == [0, 4, 8]
    assert parts == whole
