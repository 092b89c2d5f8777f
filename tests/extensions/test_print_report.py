"""Tests of PrintReport: printed rows, resume, and output next to a progress bar."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.extensions import LogReport, PlotReport, PrintReport, ProgressBar, snapshot
from tests.terminals import Terminal

SaveAndLoad = Callable[[dict[str, Any]], dict[str, Any]]


def make_manager(out: Path, *parts: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, 100, parts, iters_per_epoch=4, out_dir=out)


def train(manager: pte.ExtensionsManager, until: int) -> None:
    while manager.iteration < until:
        with manager.run_iteration():
            pte.report({"loss": 0.5, "done": manager.iteration + 1})


def split_lines(out: io.StringIO) -> list[list[str]]:
    return [line.split() for line in out.getvalue().splitlines()]


def test_print_report_prints_rows_when_logged(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, LogReport(), PrintReport(["epoch", "iteration", "done"], out=out)) as manager:
        train(manager, 3)
        assert out.getvalue() == ""
        train(manager, 4)
        assert split_lines(out) == [["epoch", "iteration", "done"], ["1", "4", "2.5"]]
        train(manager, 8)
    assert out.getvalue() == "epoch       iteration   done\n1           4           2.5\n2           8           6.5\n"


def test_print_report_default_entries_print_all_values(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, LogReport(trigger=(2, "iteration")), PrintReport(out=out)) as manager:
        train(manager, 2)
        with manager.run_iteration():
            pte.report({"val/loss": 3})
        train(manager, 4)
    lines = split_lines(out)
    assert lines[0] == ["iteration", "loss", "done", "elapsed_time"]
    assert lines[2] == ["iteration", "loss", "done", "val/loss", "elapsed_time"]
    assert lines[3][:4] == ["4", "0.5", "4", "3"]
    assert len(lines) == 4


def report_many(tmp_path: Path, out: Any, entries: list[str] | None = None) -> None:
    with make_manager(tmp_path, LogReport(), PrintReport(entries, out=out)) as manager:
        while manager.iteration < 8:
            with manager.run_iteration():
                pte.report({f"validation/metric_{index}": index for index in range(5)})


def test_print_report_narrow_terminal_omits_last_columns_with_one_message(
    tmp_path: Path, terminal: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")
    report_many(tmp_path, terminal.out)
    header, *rows = terminal.screen()[:3]
    kept = [f"validation/metric_{index}" for index in range(3)]
    assert header.split() == ["epoch", *kept]
    assert [row.split() for row in rows] == [["1", "0", "1", "2"], ["2", "0", "1", "2"]]
    (message,) = (text for text in caplog.messages if "PrintReport" in text)
    assert "no room for 3 of the columns: validation/metric_3, validation/metric_4, elapsed_time. To choose" in message
    assert "such as ['epoch', 'validation/metric_3']." in message


def test_print_report_message_names_three_of_many_omitted_columns(
    tmp_path: Path, terminal: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")
    with make_manager(tmp_path, LogReport(), PrintReport(out=terminal.out)) as manager:
        while manager.iteration < 4:
            with manager.run_iteration():
                pte.report({f"metric_with_a_long_name/{index}": index for index in range(40)})
    (message,) = (text for text in caplog.messages if "PrintReport" in text)
    names = ", ".join(f"metric_with_a_long_name/{index}" for index in (2, 3, 4))
    assert f"no room for 39 of the columns: {names}, ... To choose" in message


def test_print_report_given_entries_in_narrow_terminal_are_all_printed(tmp_path: Path, terminal: Terminal) -> None:
    entries = [f"validation/metric_{index}" for index in range(5)]
    report_many(tmp_path, terminal.out, entries)
    assert terminal.screen()[0].split() == entries


def test_print_report_terminal_of_unknown_width_shows_all_columns(tmp_path: Path) -> None:
    terminal = Terminal(0)
    report_many(tmp_path, terminal.out)
    assert len(terminal.screen()[0].split()) == 7


def test_print_report_missing_key_leaves_blank_cell(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, LogReport("done"), PrintReport(["loss", "done"], out=out)) as manager:
        train(manager, 4)
    assert out.getvalue().splitlines() == ["loss        done", "            2.5"]


def test_print_report_row_without_a_metric_in_the_columns_is_skipped(tmp_path: Path) -> None:
    out, clocks = io.StringIO(), io.StringIO()
    reports = (
        LogReport(trigger=(1, "iteration")),
        PrintReport(["epoch", "iteration", "val/loss", "elapsed_time"], out=out),
        PrintReport(["iteration"], out=clocks),
    )
    with make_manager(tmp_path, *reports) as manager:
        while manager.iteration < 4:
            with manager.run_iteration():
                pte.report({"loss": 0.5})
                if manager.iteration % 2:
                    pte.report({"val/loss": math.nan})
    assert [line[:3] for line in split_lines(out)] == [
        ["epoch", "iteration", "val/loss"],
        ["0", "2", "nan"],
        ["1", "4", "nan"],
    ]
    assert split_lines(clocks) == [["iteration"], ["1"], ["2"], ["3"], ["4"]]
    assert len(manager.run.rows()) == 4


def test_print_report_default_output_is_current_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_manager(tmp_path, LogReport(), PrintReport(["epoch"])) as manager:
        train(manager, 4)
    assert capsys.readouterr().out == "epoch\n1\n"


def test_print_report_accepts_log_report_by_name_or_object(tmp_path: Path) -> None:
    by_name, by_object = io.StringIO(), io.StringIO()
    other = LogReport(trigger=(3, "iteration"), filename="other")
    manager = make_manager(tmp_path, LogReport())
    manager.extend(other, name="other")
    manager.extend(PrintReport(["iteration", "done"], "other", by_name))
    manager.extend(PrintReport(["iteration", "done"], other, by_object))
    train(manager, 6)
    manager.close()
    assert by_name.getvalue() == by_object.getvalue()
    assert split_lines(by_object) == [["iteration", "done"], ["3", "2"], ["6", "5"]]
    assert len(other.log) == 2


@pytest.mark.parametrize("cut", [2, 3, 4])
def test_print_report_unregistered_log_report_is_run(tmp_path: Path, cut: int, save_and_load: SaveAndLoad) -> None:
    def report() -> PrintReport:
        return PrintReport(["iteration", "done"], LogReport(trigger=(3, "iteration")), out)

    out = io.StringIO()
    manager = make_manager(tmp_path, report())
    train(manager, cut)
    state = save_and_load(manager.state_dict())
    manager.close("KILLED")
    with make_manager(tmp_path, report()) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 6)
    assert [line for line in split_lines(out) if line[0] != "iteration"] == [["3", "2"], ["6", "5"]]


def test_print_report_resumed_run_does_not_repeat_rows(tmp_path: Path, save_and_load: SaveAndLoad) -> None:
    first, second = io.StringIO(), io.StringIO()
    manager = make_manager(tmp_path, LogReport(), PrintReport(["epoch"], out=first))
    train(manager, 9)
    state = save_and_load(manager.state_dict())
    manager.close("KILLED")
    with make_manager(tmp_path, LogReport(), PrintReport(["epoch"], out=second)) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 16)
    assert split_lines(first) == [["epoch"], ["1"], ["2"]]
    assert split_lines(second) == [["epoch"], ["3"], ["4"]]


def test_print_report_own_trigger_sets_print_times(tmp_path: Path, save_and_load: SaveAndLoad) -> None:
    def make_print_manager(out: io.StringIO) -> pte.ExtensionsManager:
        manager = make_manager(tmp_path, LogReport(trigger=(1, "iteration")))
        manager.extend(PrintReport(["iteration"], out=out), trigger=(1, "epoch"))
        return manager

    first, second = io.StringIO(), io.StringIO()
    manager = make_print_manager(first)
    train(manager, 6)
    assert split_lines(first) == [["iteration"], ["1"], ["2"], ["3"], ["4"]]
    state = save_and_load(manager.state_dict())
    manager.close("KILLED")
    with make_print_manager(second) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 8)
    assert split_lines(second) == [["iteration"], ["5"], ["6"], ["7"], ["8"]]


def test_print_report_own_trigger_does_not_sample_its_log_report(tmp_path: Path) -> None:
    out = io.StringIO()
    manager = make_manager(tmp_path)
    report = PrintReport(["iteration", "done"], LogReport(trigger=(2, "iteration")), out)
    manager.extend(report, trigger=(4, "iteration"))
    train(manager, 2)
    assert out.getvalue() == ""
    train(manager, 7)
    manager.close()
    assert split_lines(out)[1:] == [["2", "1.5"], ["4", "3.5"], ["6", "5.5"]]


@pytest.mark.parametrize(
    ("entry", "rows", "is_warned"),
    [
        ("train/accurcy", 1, True),
        ("accuracy", 1, True),
        ("Train/Accuracy", 1, True),
        ("val/accuracy", 3, False),  # may be reported later
        ("iteration", 3, False),
    ],
)
def test_print_report_misspelled_entry_warns_after_first_row(
    entry: str, rows: int, is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make_manager(tmp_path, LogReport(), PrintReport(["epoch", entry], out=io.StringIO()))
    for _ in range(4 * rows):
        with manager.run_iteration():
            pte.report({"train/accuracy": 1.0})
    expected = (
        f"PrintReport: no row has a value of the entry {entry!r}. Reported keys: 'train/accuracy'. Did you mean "
        "'train/accuracy'?"
    )
    assert caplog.messages == [expected] * is_warned


def test_print_report_absent_entry_warns_once_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def train_epochs(epochs: int, *, validates: bool) -> list[str]:
        out = io.StringIO()
        report = PrintReport(["epoch", "val/loss", "los"], out=out)
        caplog.clear()
        with make_manager(tmp_path, LogReport(), report, pte.extensions.snapshot()) as manager:
            manager.resume()
            for _ in range(epochs * 4):
                with manager.run_iteration():
                    pte.report({"loss": 1.0})
                    if validates:
                        pte.report({"val/loss": 1.0})
        return [message for message in caplog.messages if "PrintReport" in message]

    for validates in (True, False):  # The second session finds val/loss in the rows of the first one.
        (message,) = train_epochs(3, validates=validates)
        assert "no row has a value of the entry 'los'. Reported keys: 'loss'" in message


@pytest.mark.parametrize("ending", ["error in the loop", "error in an extension", "break", "interrupt"])
def test_print_report_row_of_interrupted_interval_is_logged_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    def evaluate(manager: Any) -> None:
        if ending == "error in an extension" and manager.iteration == 4:
            raise ValueError("boom")
        pte.report({"val/loss": 0.5})

    out, log = io.StringIO(), extensions.LogReport()
    evaluation = pte.make_extension(trigger=(1, "epoch"), priority=pte.PRIORITY_WRITER)(evaluate)
    report = extensions.PrintReport(["epoch", "loss", "val/loss"], out=out)
    manager = pte.ExtensionsManager(
        {}, 3, [evaluation, log, report], out_dir=tmp_path, iters_per_epoch=2, sinks=["json"]
    )
    with contextlib.suppress(ValueError, KeyboardInterrupt), manager:
        for _ in manager.batches(range(2)):
            with manager.run_iteration():
                pte.report({"loss": 1.0})
                if manager.iteration == 3 and ending == "error in the loop":
                    raise ValueError("boom")
                if manager.iteration == 3 and ending == "interrupt":
                    raise KeyboardInterrupt
            if manager.iteration == 3 and ending == "break":
                break
    assert out.getvalue().split() == ["epoch", "loss", "val/loss", "1", "1", "0.5"]
    assert [row.get("val/loss") for row in log.log] == [0.5, None]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_print_report_failed_first_evaluation_does_not_warn_of_missing_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(manager: Any) -> None:
        raise ValueError("boom")

    out, log = io.StringIO(), extensions.LogReport(["loss", "val/loss"])
    evaluation = pte.make_extension(trigger=(1, "epoch"), priority=pte.PRIORITY_WRITER)(fail)
    report = extensions.PrintReport(["epoch", "loss", "val/loss"], out=out)
    manager = pte.ExtensionsManager(
        {}, 3, [evaluation, log, report], out_dir=tmp_path, iters_per_epoch=2, sinks=["json"]
    )
    with contextlib.suppress(ValueError), manager:
        for _ in manager.iterations(range(2)):
            pte.report({"loss": 1.0})
    assert out.getvalue() == ""
    assert [row["iteration"] for row in log.log] == [2]
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_print_report_before_log_report_prints_last_row(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, PrintReport(["epoch"], out=out), LogReport()) as manager:
        train(manager, 8)
    assert split_lines(out) == [["epoch"], ["1"], ["2"]]


def test_print_report_write_only_stream_is_accepted(tmp_path: Path) -> None:
    class Stream:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

    out: Any = Stream()
    with make_manager(tmp_path, LogReport(), PrintReport(["epoch"], out=out)) as manager:
        train(manager, 4)
    assert out.text == "epoch\n1\n"


def test_print_report_rows_are_flushed(tmp_path: Path) -> None:
    with (tmp_path / "printed").open("w") as out:
        manager = make_manager(tmp_path / "run", LogReport(), PrintReport(["epoch"], out=out))
        train(manager, 4)
        assert (tmp_path / "printed").read_text() == "epoch\n1\n"
        manager.close()


def test_print_report_missing_log_report_raises_value_error(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, PrintReport())
    with pytest.raises(
        ValueError, match=r"PrintReport: no extension is named 'LogReport'.* Add extensions.LogReport\(\)"
    ):
        train(manager, 1)


def test_print_report_invalid_log_report_raises_type_error(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, PrintReport(log_report="ProgressBar"), ProgressBar(out=io.StringIO()))
    with pytest.raises(TypeError, match="log_report: expected a LogReport as 'ProgressBar', got a ProgressBar"):
        train(manager, 1)
    with pytest.raises(
        TypeError, match="log_report: expected a LogReport or the name of a registered LogReport, got 3 of type int"
    ):
        PrintReport(log_report=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("entries", ["epoch", [1]])
def test_print_report_invalid_entries_raise_type_error(entries: Any) -> None:
    with pytest.raises(TypeError, match=r"entries: expected a list of keys, such as \['epoch', 'train/loss'\], got"):
        PrintReport(entries)


def test_print_report_rows_keep_progress_bar_intact(tmp_path: Path, terminal: Any) -> None:
    printing, bar = PrintReport(["epoch", "done"], out=terminal.out), ProgressBar(out=terminal.out)
    with make_manager(tmp_path, LogReport(), printing, bar) as manager:
        train(manager, 12)
    assert terminal.written().count("epoch 3/100") >= 1
    lines = terminal.screen()
    assert lines[:4] == ["epoch       done", "1           2.5", "2           6.5", "3           10.5"]
    assert lines[4].startswith("epoch 3/100    3%|")
    assert lines[5:] == [""]


def test_print_report_full_disk_does_not_stop_training(tmp_path: Path) -> None:
    out = open("/dev/full", "w")  # noqa: SIM115
    with make_manager(tmp_path, LogReport(), PrintReport(out=out)) as manager:
        train(manager, 12)
    assert manager.iteration == 12
    with pytest.raises(OSError, match="No space left"):
        out.close()


@pytest.mark.parametrize(("iterations", "has_ended_an_epoch"), [(3, False), (4, True)])
def test_extensions_of_training_cut_in_first_epoch_do_not_warn_of_missing_keys(
    iterations: int, has_ended_an_epoch: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interval = (2, "iteration")
    manager = make_manager(
        tmp_path,
        LogReport(["loss", "val/loss"], trigger=interval),
        PrintReport(["loss", "val/loss"], out=io.StringIO()),
        PlotReport(["loss", "val/loss"], trigger=interval),
        snapshot(keep_best=("val/loss", "min", 1), trigger=interval),
    )
    train(manager, iterations)
    manager.close()
    named = [message.partition(":")[0] for message in caplog.messages if "'val/loss'" in message]
    assert sorted(named) == (["LogReport", "PlotReport", "PrintReport", "snapshot"] if has_ended_an_epoch else [])
