"""Printed rows: each once, aligned, as they are made, and a progress bar that they do not tear."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking.extensions import LogReport, PrintReport, ProgressBar

ThroughAFile = Callable[[dict[str, Any]], dict[str, Any]]


def manager_of(out: Path, *extensions: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, 100, extensions, iters_per_epoch=4, out_dir=out)


def train(manager: pte.ExtensionsManager, until: int) -> None:
    while manager.iteration < until:
        with manager.run_iteration():
            pte.report({"loss": 0.5, "done": manager.iteration + 1})


def printed(out: io.StringIO) -> list[list[str]]:
    return [line.split() for line in out.getvalue().splitlines()]


def test_rows_are_printed_as_they_are_made(tmp_path: Path) -> None:
    out = io.StringIO()
    with manager_of(tmp_path, LogReport(), PrintReport(["epoch", "iteration", "done"], out=out)) as manager:
        train(manager, 3)
        assert out.getvalue() == ""
        train(manager, 4)
        assert printed(out) == [["epoch", "iteration", "done"], ["1", "4", "2.5"]]
        train(manager, 8)
    assert out.getvalue() == "epoch       iteration   done\n1           4           2.5\n2           8           6.5\n"


def test_without_entries_all_values_are_printed(tmp_path: Path) -> None:
    out = io.StringIO()
    with manager_of(tmp_path, LogReport(trigger=(2, "iteration")), PrintReport(out=out)) as manager:
        train(manager, 2)
        with manager.run_iteration():
            pte.report({"val/loss": 3})
        train(manager, 4)
    lines = printed(out)
    assert lines[0] == ["iteration", "loss", "done", "elapsed_time"]
    assert lines[2] == ["iteration", "loss", "done", "val/loss", "elapsed_time"]
    assert lines[3][:4] == ["4", "0.5", "4", "3"]
    assert len(lines) == 4


def test_a_key_that_is_not_in_a_row_leaves_a_blank(tmp_path: Path) -> None:
    out = io.StringIO()
    with manager_of(tmp_path, LogReport("done"), PrintReport(["loss", "done"], out=out)) as manager:
        train(manager, 4)
    assert out.getvalue().splitlines() == ["loss        done", "            2.5"]


def test_the_standard_output_is_that_of_the_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with manager_of(tmp_path, LogReport(), PrintReport(["epoch"])) as manager:
        train(manager, 4)
    assert capsys.readouterr().out == "epoch\n1\n"


def test_another_log_is_named_or_handed_over(tmp_path: Path) -> None:
    by_name, by_object = io.StringIO(), io.StringIO()
    other = LogReport(trigger=(3, "iteration"), filename="other")
    manager = manager_of(tmp_path, LogReport())
    manager.extend(other, name="other")
    manager.extend(PrintReport(["iteration", "done"], "other", by_name))
    manager.extend(PrintReport(["iteration", "done"], other, by_object))
    train(manager, 6)
    manager.close()
    assert by_name.getvalue() == by_object.getvalue()
    assert printed(by_object) == [["iteration", "done"], ["3", "2"], ["6", "5"]]
    assert len(other.log) == 2


@pytest.mark.parametrize("cut", [2, 3, 4])
def test_a_log_that_is_not_registered_is_run_by_it(tmp_path: Path, cut: int, through_a_file: ThroughAFile) -> None:
    def report() -> PrintReport:
        return PrintReport(["iteration", "done"], LogReport(trigger=(3, "iteration")), out)

    out = io.StringIO()
    manager = manager_of(tmp_path, report())
    train(manager, cut)
    state = through_a_file(manager.state_dict())
    manager.close("KILLED")
    with manager_of(tmp_path, report()) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 6)
    assert [line for line in printed(out) if line[0] != "iteration"] == [["3", "2"], ["6", "5"]]


def test_rows_of_a_resumed_run_are_not_printed_twice(tmp_path: Path, through_a_file: ThroughAFile) -> None:
    first, second = io.StringIO(), io.StringIO()
    manager = manager_of(tmp_path, LogReport(), PrintReport(["epoch"], out=first))
    train(manager, 9)
    state = through_a_file(manager.state_dict())
    manager.close("KILLED")
    with manager_of(tmp_path, LogReport(), PrintReport(["epoch"], out=second)) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 16)
    assert printed(first) == [["epoch"], ["1"], ["2"]]
    assert printed(second) == [["epoch"], ["3"], ["4"]]


def test_its_own_trigger_says_when_to_print(tmp_path: Path, through_a_file: ThroughAFile) -> None:
    def managed(out: io.StringIO) -> pte.ExtensionsManager:
        manager = manager_of(tmp_path, LogReport(trigger=(1, "iteration")))
        manager.extend(PrintReport(["iteration"], out=out), trigger=(1, "epoch"))
        return manager

    first, second = io.StringIO(), io.StringIO()
    manager = managed(first)
    train(manager, 6)
    assert printed(first) == [["iteration"], ["1"], ["2"], ["3"], ["4"]]
    state = through_a_file(manager.state_dict())
    manager.close("KILLED")
    with managed(second) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 8)
    assert printed(second) == [["iteration"], ["5"], ["6"], ["7"], ["8"]]


def test_the_last_row_is_printed_also_where_it_runs_before_the_log(tmp_path: Path) -> None:
    out = io.StringIO()
    with manager_of(tmp_path, PrintReport(["epoch"], out=out), LogReport()) as manager:
        train(manager, 8)
    assert printed(out) == [["epoch"], ["1"], ["2"]]


def test_a_stream_need_only_be_written_to(tmp_path: Path) -> None:
    class Stream:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

    out: Any = Stream()
    with manager_of(tmp_path, LogReport(), PrintReport(["epoch"], out=out)) as manager:
        train(manager, 4)
    assert out.text == "epoch\n1\n"


def test_rows_are_flushed(tmp_path: Path) -> None:
    with (tmp_path / "printed").open("w") as out:
        manager = manager_of(tmp_path / "run", LogReport(), PrintReport(["epoch"], out=out))
        train(manager, 4)
        assert (tmp_path / "printed").read_text() == "epoch\n1\n"
        manager.close()


def test_without_a_log_it_says_so(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, PrintReport())
    with pytest.raises(ValueError, match=r"add extensions.LogReport\(\) or name another: .*'LogReport'"):
        train(manager, 1)


def test_something_else_is_no_log(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, PrintReport(log_report="ProgressBar"), ProgressBar(out=io.StringIO()))
    with pytest.raises(TypeError, match="log_report: 'ProgressBar' is a ProgressBar, not a LogReport"):
        train(manager, 1)
    with pytest.raises(TypeError, match="log_report: expected a LogReport or the name of one, got 3 of type int"):
        PrintReport(log_report=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("entries", ["epoch", [1]])
def test_entries_must_be_keys(entries: Any) -> None:
    with pytest.raises(TypeError, match=r"entries: expected a list of keys, such as \['epoch', 'train/loss'\], got"):
        PrintReport(entries)


def test_rows_do_not_tear_a_progress_bar(tmp_path: Path, terminal: Any) -> None:
    printing, bar = PrintReport(["epoch", "done"], out=terminal.out), ProgressBar(out=terminal.out)
    with manager_of(tmp_path, LogReport(), printing, bar) as manager:
        train(manager, 12)
    assert terminal.written().count("epoch 4/100") >= 1
    lines = terminal.screen()
    assert lines[:4] == ["epoch       done", "1           2.5", "2           6.5", "3           10.5"]
    assert lines[4].startswith("epoch 4/100    3%|")
    assert lines[5:] == [""]


def test_a_full_disk_under_the_output_costs_lines_and_not_the_training(tmp_path: Path) -> None:
    out = open("/dev/full", "w")  # noqa: SIM115
    with manager_of(tmp_path, LogReport(), PrintReport(out=out)) as manager:
        train(manager, 12)
    assert manager.iteration == 12
    with pytest.raises(OSError, match="No space left"):
        out.close()
