"""Tests of ProgressBar: bars in terminals, lines in files."""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from tqdm import tqdm

import pte_tracking as pte
from pte_tracking.extensions import Evaluator, LogReport, ProgressBar
from pte_tracking.extensions import _progress_display as display
from tests.terminals import Terminal
from tests.test_reporter import DistantTensor, make_distant

SaveAndLoad = Callable[[dict[str, Any]], dict[str, Any]]


def make_manager(out: Path, *extensions: Any, epochs: float = 3, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, epochs, extensions, **{"iters_per_epoch": 4, "out_dir": out, **options})


def train(manager: pte.ExtensionsManager, until: int, **values: Any) -> None:
    while manager.iteration < until:
        with manager.run_iteration():
            pte.report(values)


@pytest.fixture
def show_every_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the throttling of the display."""
    monkeypatch.setattr(display, "_REDRAW_SECONDS", 0)
    monkeypatch.setattr(display, "_MIN_LINE_SECONDS", 0)
    monkeypatch.setattr(display, "_LINE_TIME_FRACTION", 0)


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_terminal_shows_single_bar_for_run(tmp_path: Path, terminal: Any) -> None:
    with make_manager(tmp_path, ProgressBar(out=terminal.out)) as manager:
        train(manager, 12, loss=0.25)
    written = terminal.written()
    for epoch, percent, done in [(1, 8, 1), (1, 25, 3), (1, 33, 4), (2, 42, 5), (2, 67, 8), (3, 100, 12)]:
        assert re.search(rf"epoch {epoch}/3 +{percent}%\|.*\| +{done}/12 \[", written)
    (line, rest) = terminal.screen()
    assert re.fullmatch(r"epoch 3/3  100%\|█+\| 12/12 \[\d\d:\d\d<00:00, .*, loss=0.25\]", line)
    assert terminal.columns - 1 <= len(line) <= terminal.columns
    assert rest == ""


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_file_receives_plain_lines(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, ProgressBar(out=out)) as manager:
        train(manager, 12, loss=0.25)
    lines = out.getvalue().splitlines()
    assert "\r" not in out.getvalue()
    assert re.fullmatch(r"epoch 1/3    8%  1/12 \[\d\d:\d\d<.*, loss=0.25\]", lines[0])
    assert lines[-1].startswith("epoch 3/3  100%  12/12 [")
    assert re.findall(r"(\d+)/12", out.getvalue()) == [str(iteration) for iteration in range(1, 13)]


def test_progress_bar_file_output_is_throttled(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, ProgressBar(out=out), epochs=1000) as manager:
        train(manager, 4000)
    assert len(out.getvalue().splitlines()) == 1


def test_progress_bar_terminal_output_is_throttled(tmp_path: Path, terminal: Any) -> None:
    with make_manager(tmp_path, ProgressBar(out=terminal.out), epochs=1000) as manager:
        train(manager, 4000)
    assert terminal.written().count("\r") < 400


@pytest.mark.usefixtures("show_every_iteration")
@pytest.mark.parametrize(
    ("bar", "options", "expected"),
    [
        ({}, {"stop_trigger": (7, "iteration")}, "epoch 2/2  100%  7/7 "),
        ({}, {"stop_trigger": (7, "iteration"), "iters_per_epoch": None}, "100%  7/7 "),
        ({}, {"epochs": 1.75}, "epoch 2/2  100%  7/7 "),
        ({"training_length": (3.5, "epoch")}, {}, "epoch 2/4   50%  7/14 "),
        ({"training_length": (70, "iteration")}, {"stop_trigger": lambda manager: False}, "epoch 2/18   10%  7/70 "),
        ({}, {"stop_trigger": lambda manager: False}, "epoch 2/3   58%  7/12 "),
        ({}, {"stop_trigger": lambda manager: False, "epochs": math.inf}, "epoch 2  7 "),
        ({}, {"stop_trigger": lambda manager: False, "iters_per_epoch": None}, "7 "),
        ({"training_length": (0.1, "epoch")}, {"iters_per_epoch": 30, "epochs": 1}, "epoch 1/1  100%  7/7 "),
    ],
)
def test_progress_bar_length_comes_from_argument_or_stop_trigger(
    tmp_path: Path, bar: dict[str, Any], options: dict[str, Any], expected: str
) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, ProgressBar(out=out, **bar), **options) as manager:
        train(manager, 7)
    assert out.getvalue().splitlines()[-1].partition("[")[0] == expected


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_fractional_training_length_is_exact(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, ProgressBar((0.1, "epoch"), out=out), iters_per_epoch=30) as manager:
        train(manager, 1)
    assert "1/3 [" in out.getvalue()


@pytest.mark.usefixtures("show_every_iteration")
@pytest.mark.parametrize("cut", [1, 5])
def test_progress_bar_resumed_run_continues_count(tmp_path: Path, cut: int, save_and_load: SaveAndLoad) -> None:
    out = io.StringIO()
    manager = make_manager(tmp_path, ProgressBar(out=io.StringIO()))
    train(manager, cut)
    state = save_and_load(manager.state_dict())
    manager.close("KILLED")
    with make_manager(tmp_path, ProgressBar(out=out)) as resumed:
        resumed.load_state_dict(state)
        train(resumed, 12)
    assert f" {cut + 1}/12 [" in out.getvalue().splitlines()[0]
    assert " 12/12 [" in out.getvalue().splitlines()[-1]


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_shows_newest_values(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, ProgressBar(out=out)) as manager:
        train(manager, 1, loss=0.5, accuracy=1)
        train(manager, 2, loss=0.25)
    assert out.getvalue().splitlines()[-1].endswith("loss=0.25, accuracy=1]")


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_device_values_are_shown_once_logged(tmp_path: Path) -> None:
    out = io.StringIO()
    manager = make_manager(tmp_path, LogReport(), ProgressBar(out=out))
    before = DistantTensor.synchronizations
    train(manager, 3, loss=make_distant(0.5))
    assert DistantTensor.synchronizations == before
    assert "loss" not in out.getvalue()
    train(manager, 5, loss=make_distant(0.5))
    assert DistantTensor.synchronizations == before + 1
    assert out.getvalue().splitlines()[-1].endswith("loss=0.5]")


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_values_exceeding_width_are_omitted(tmp_path: Path, terminal: Any) -> None:
    with make_manager(tmp_path, ProgressBar(out=terminal.out, bar_length=25)) as manager:
        train(manager, 12, **{f"a_rather_long_name_{i}": i for i in range(100)})
    lines = re.findall(r"[^\r\n]+", terminal.written())
    assert max(map(len, lines)) <= terminal.columns
    assert terminal.screen()[0].count("█") == 25
    assert "name" not in terminal.screen()[0]


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_evaluation_shows_temporary_bar_below(
    tmp_path: Path, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.out)
    evaluator = Evaluator([torch.zeros(1)] * 5, nn.Identity(), progress_bar=True)
    with make_manager(tmp_path, ProgressBar(), evaluator) as manager:
        train(manager, 12, loss=0.25)
    assert len(re.findall(r"\n\r *validation: +0%\|.*?\| 0/5", terminal.written())) == 3
    line, *rest = terminal.screen()
    assert " 12/12 [" in line
    assert "".join(rest) == ""


def bar_lines(written: str) -> list[str]:
    """Return the states of a bar without values, and with them."""
    return [line for line in re.split(r"[\r\n]+", written) if line.startswith("epoch")]


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_values_keep_their_places(tmp_path: Path) -> None:
    terminal = Terminal(120)
    with make_manager(tmp_path, ProgressBar(out=terminal.out), iters_per_epoch=40) as manager:
        for iteration in range(120):
            with manager.run_iteration():
                pte.report({"loss": 3.14159 * 10 ** -(iteration % 7), "lr": 0.1, "error": -iteration / 7})
    lines = bar_lines(terminal.written())[20:]
    assert len(lines) > 100
    usual = [line for line in lines if not re.search(r"\d{5,}\.\d\dit/s", line)]
    for part in ("/120 [", "it/s", "loss=", "lr=", "error="):
        assert len({line.index(part) for line in usual}) == 1


@pytest.mark.usefixtures("show_every_iteration")
@pytest.mark.parametrize(
    ("columns", "has_bar", "has_rate", "has_value"),
    [(100, True, True, True), (74, False, True, True), (60, True, True, False), (44, False, False, False)],
)
def test_progress_bar_narrow_terminal_omits_whole_parts(
    tmp_path: Path, columns: int, has_bar: bool, has_rate: bool, has_value: bool
) -> None:
    terminal = Terminal(columns)
    with make_manager(tmp_path, ProgressBar(out=terminal.out), iters_per_epoch=100, epochs=1) as manager:
        for iteration in range(100):
            with manager.run_iteration():
                pte.report({"a_long_name": iteration / 7})
    lines = bar_lines(terminal.written())[1:]
    assert max(map(len, lines)) < columns
    for line in lines:
        assert re.search(r"^epoch 1/1 +\d+%.* \d+/100 \[00:0\d<(\?|\d\d:\d\d).*\] *$", line)
        assert ("|" in line, "it/s" in line, "a_long_name=" in line) == (has_bar, has_rate, has_value)


@pytest.mark.parametrize(("columns", "rows"), [(0, 0), (80, 0), (0, 24)])
def test_progress_bar_terminal_of_unknown_size_shows_bar(tmp_path: Path, columns: int, rows: int) -> None:
    terminal = Terminal(columns, rows)
    try:
        bar = ProgressBar(out=terminal.out)
        for _ in pte.ExtensionsManager({}, 1, [bar], out_dir=tmp_path, sinks=[]).iterations(range(3)):
            pass
        last = terminal.written().rstrip().rpartition("\r")[2]
    finally:
        terminal.close()
    assert len(last) == 80
    assert re.match(r"epoch 1/1  100%\|█+\| 3/3 ", last)


def test_progress_bar_evaluation_shows_current_iteration(tmp_path: Path, terminal: Any) -> None:
    def evaluate(x: torch.Tensor) -> None:
        tqdm.write("evaluating", terminal.out)

    # A long interval: only the end of the epoch is shown.
    bar = ProgressBar(out=terminal.out, update_interval=1000)
    with make_manager(tmp_path, Evaluator([torch.zeros(1)], nn.Identity(), eval_func=evaluate), bar) as manager:
        train(manager, 6)
    before, *_ = terminal.written().split("evaluating")
    assert " 4/12 [" in bar_lines(before)[-1]


def test_progress_bar_message_repeats_bar_with_current_iteration(tmp_path: Path, terminal: Any) -> None:
    with make_manager(tmp_path, ProgressBar(out=terminal.out, update_interval=1000)) as manager:
        train(manager, 3)
        tqdm.write("message", terminal.out)
        train(manager, 12)
    assert " 3/12 [" in bar_lines(terminal.written().partition("message")[2])[0]


def test_progress_bar_shows_values_of_extensions_in_last_iteration(tmp_path: Path) -> None:
    out = io.StringIO()
    evaluator = Evaluator([torch.zeros(1)], nn.Identity(), eval_func=lambda x: pte.report({"error": 0.5}))
    with make_manager(tmp_path, evaluator, ProgressBar(out=out)) as manager:
        train(manager, 12, loss=0.25)
    assert out.getvalue().splitlines()[-1].endswith("loss=0.25, error=0.5]")


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("is_in_loader", [False, True])
def test_progress_bar_line_ends_before_exception_leaves_loop(
    tmp_path: Path, terminal: Any, error: type[BaseException], is_in_loader: bool
) -> None:
    def load() -> Iterator[int]:
        yield from range(3)
        if is_in_loader:
            raise error
        yield 3

    class Loader:
        def __iter__(self) -> Iterator[int]:
            return load()

    manager = make_manager(tmp_path, ProgressBar(out=terminal.out, update_interval=1000))
    try:
        for batch in manager.iterations(Loader()):
            if batch == 3:
                raise error
    except error:
        terminal.out.write("Traceback")
    manager.close()
    line, following, *rest = terminal.screen()
    assert " 3/12 [" in line
    assert [following, *rest] == ["Traceback"]


def test_progress_bar_loop_after_exception_shows_another_bar(tmp_path: Path, terminal: Any) -> None:
    manager = make_manager(tmp_path, ProgressBar(out=terminal.out))
    for is_interrupted in (True, False):
        try:
            for _ in manager.iterations(range(4)):
                if is_interrupted and manager.iteration == 2:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            terminal.out.write("interrupted\n")
    first, message, second, rest = terminal.screen()
    assert (" 2/12 [" in first, message, " 12/12 [" in second, rest) == (True, "interrupted", True, "")


def test_progress_bar_error_keeps_bar_and_ends_line(tmp_path: Path, terminal: Any) -> None:
    manager = make_manager(tmp_path, ProgressBar(out=terminal.out))
    train(manager, 5)
    with pytest.raises(ZeroDivisionError), manager.run_iteration():
        1 / 0
    assert not tqdm._instances
    line, rest = terminal.screen()
    assert " 5/12 [" in line
    assert rest == ""


def test_progress_bar_does_not_start_thread(tmp_path: Path, terminal: Any) -> None:
    before = tqdm.monitor
    with make_manager(tmp_path, ProgressBar(out=terminal.out)) as manager:
        train(manager, 1)
        assert tqdm.monitor is before


def test_progress_bar_default_output_is_current_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_manager(tmp_path, ProgressBar()) as manager:
        train(manager, 12)
    captured = capsys.readouterr()
    assert "12/12" in captured.err
    assert captured.out == ""


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_update_interval_reduces_output(tmp_path: Path) -> None:
    out = io.StringIO()
    with make_manager(tmp_path, ProgressBar(update_interval=5, out=out)) as manager:
        train(manager, 12)
    assert re.findall(r"(\d+)/12", out.getvalue()) == ["5", "10", "12"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"training_length": (3, "epochs")}, ValueError, "unit: expected 'epoch' or 'iteration', got 'epochs'"),
        ({"training_length": (0, "epoch")}, ValueError, "expected a positive number, got 0"),
        ({"training_length": 20}, TypeError, r"training_length: expected a pair such as \(20, 'epoch'\), got 20"),
        ({"update_interval": 0}, ValueError, "update_interval: expected a positive integer, got 0"),
        ({"bar_length": 2.5}, ValueError, "bar_length: expected a positive integer, got 2.5"),
    ],
)
def test_progress_bar_invalid_arguments_raise_errors(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ProgressBar(**options)


@pytest.mark.usefixtures("show_every_iteration")
def test_progress_bar_full_disk_does_not_stop_training(tmp_path: Path) -> None:
    out = open("/dev/full", "w")  # noqa: SIM115
    with make_manager(tmp_path, ProgressBar(out=out)) as manager:
        train(manager, 12)
    assert manager.iteration == 12
    with pytest.raises(OSError, match="No space left"):
        out.close()


def test_progress_bar_missing_stderr_does_not_stop_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with make_manager(tmp_path, ProgressBar()) as manager:
        train(manager, 12)
    assert manager.iteration == 12
