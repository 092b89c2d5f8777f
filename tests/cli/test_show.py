"""Tests of the commands list and show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._cli import plot
from pte_tracking._cli.rendering import print_latest
from pte_tracking._delivery.cursor import Cursor, CursorStore
from pte_tracking._store import metrics
from tests.cli.invocation import invoke


def test_list_shows_status_and_last_step_of_each_run(run: Path) -> None:
    with pte.Run(run, sinks=[]) as second:
        second.log_metrics({"loss": 1.0}, 3)
    result = invoke("list", run.parent)
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if "FINISHED" in line]
    assert sorted(line[line.index("FINISHED") + 1] for line in lines) == ["20", "3"]


def test_list_without_terminal_prints_one_line_per_run(run: Path) -> None:
    with pte.Run(run.parent / ("long" * 40), sinks=[]) as second:
        second.log_metrics({"loss": 1.0}, 3)
    assert len(invoke("list", run.parent).output.splitlines()) == 3


def test_list_reads_the_metrics_of_a_run_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_metrics, reads = metrics.read_metrics, []
    monkeypatch.setattr(metrics, "read_metrics", lambda directory: reads.append(directory) or read_metrics(directory))
    assert invoke("list", run.parent).exit_code == 0
    assert reads == [run]


def test_show_prints_params_last_rows_and_sinks(run: Path) -> None:
    output = invoke("show", run).output
    for expected in ("FINISHED", "lr", "0.1", "loss", "0.05", "Sinks: json"):
        assert expected in output


def test_json_option_prints_same_strict_json_in_list_and_show(run: Path) -> None:
    shown = json.loads(invoke("show", run, "--json").output, parse_constant=pytest.fail)
    assert shown["step"] == 20
    assert shown["rows"][-1] == {"epoch": 2.0, "iteration": 20, "loss": 0.05, "odd": None}
    (listed,) = json.loads(invoke("list", run, "--json").output)
    assert listed == shown | {"best": {"key": "loss", "value": 0.05, "step": 20}}


def test_list_and_sort_use_the_metric_and_the_mode_of_keep_best(tmp_path: Path) -> None:
    for name, values in [("low", [0.5, 0.1, 0.3]), ("high", [0.2, 0.9, 0.4])]:
        best = extensions.snapshot(trigger=(1, "iteration"), keep_best=("val/overlap_loss", "max", 1))
        report = extensions.LogReport(trigger=(1, "iteration"))
        manager = pte.ExtensionsManager({}, 1, [best, report], out_dir=tmp_path / name, sinks=[])
        for value in manager.iterations(values):
            pte.report({"val/overlap_loss": value, "val/loss": 0.0})
    listed = json.loads(invoke("list", tmp_path, "--sort", "val/overlap_loss", "--json").output)
    assert [(run["name"].split("-")[0], run["best"]["value"], run["best"]["step"]) for run in listed] == [
        ("high", 0.9, 2),
        ("low", 0.5, 1),
    ]
    assert "Best val/overlap_loss" in invoke("list", tmp_path).output


def test_show_prints_the_rows_of_each_log(tmp_path: Path) -> None:
    logs = [extensions.LogReport(trigger=(2, "iteration")), extensions.LogReport()]
    manager = pte.ExtensionsManager({}, 2, logs, out_dir=tmp_path, sinks=[])
    for value in manager.iterations([1.0, 2.0, 3.0, 4.0]):
        pte.report({"loss": value})
    shown = json.loads(invoke("show", tmp_path, "--json").output)
    assert [(row["iteration"], row["loss"]) for row in shown["rows"]] == [(2, 1.5), (4, 3.5), (6, 1.5), (8, 3.5)]
    assert [(row["iteration"], row["loss"]) for row in shown["other_rows"]["log_1"]] == [(4, 2.5), (8, 2.5)]
    assert re.search(r"Last rows of log_1 *\n.*iteration.*\n +1 +4 +2.5\n", invoke("show", tmp_path).output)


def test_show_omits_the_log_of_a_printed_table(run_with_table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plotted: list[list[tuple[int, float]]] = []
    monkeypatch.setattr(plot, "draw_curves", lambda curves, *_: plotted.extend(curves) or [])
    output = invoke("show", run_with_table).output
    assert plotted == [[(2, 1.5), (4, 3.5), (6, 1.5), (8, 3.5)]]
    assert "Last rows" in output
    assert "log_1" not in output


def test_show_prints_rows_that_no_sink_receives_if_there_are_no_others(tmp_path: Path) -> None:
    own = [extensions.PrintReport(["loss"], log_report=extensions.LogReport(sinks=[]))]
    manager = pte.ExtensionsManager({}, 1, own, out_dir=tmp_path, sinks=["json"])
    for value in manager.iterations([1.0, 2.0]):
        pte.report({"loss": value})
    shown = json.loads(invoke("show", tmp_path, "--json").output)
    assert [(row["iteration"], row["loss"]) for row in shown["rows"]] == [(2, 1.5)]


def test_list_shows_best_value(run: Path) -> None:
    (listed,) = json.loads(invoke("list", run, "--json").output)
    assert listed["best"] == {"key": "loss", "value": 0.05, "step": 20}
    header, line = invoke("list", run).output.splitlines()
    assert "Best loss  At step" in header
    assert re.search(r" 0\.05 +20 ", line)
    (listed_odd,) = json.loads(invoke("list", run, "--json", "--best", "odd").output)
    assert listed_odd["best"] == {"key": "odd", "value": None, "step": None}


def test_list_shows_highest_step_and_best_validation(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        for step, loss in ((1, 0.5), (2, 0.25), (3, 0.75)):
            run.log_metrics({"eval/train_loss": 0.0, "val/loss": loss, "val/accuracy": 1 - loss}, step)
        run.log_metrics({"test/accuracy": 0.5}, 2)
    (listed,) = json.loads(invoke("list", tmp_path, "--json").output)
    assert listed["step"] == 3
    assert listed["best"] == {"key": "val/loss", "value": 0.25, "step": 2}
    (accurate,) = json.loads(invoke("list", tmp_path, "--json", "--best", "val/accuracy").output)
    assert accurate["best"] == {"key": "val/accuracy", "value": 0.75, "step": 2}


def test_list_skips_metrics_without_finite_values(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"val/loss": float("nan"), "val/accuracy": 0.5}, 1)
    (listed,) = json.loads(invoke("list", tmp_path, "--json").output)
    assert listed["best"]["key"] == "val/accuracy"


def test_show_plots_primary_metric(run: Path) -> None:
    lines = invoke("show", run).output.splitlines()
    (top,) = (number for number, line in enumerate(lines) if line.startswith("┌"))
    (bottom,) = (number for number, line in enumerate(lines) if line.startswith("└"))
    assert lines[top + 1].endswith("│ 1")
    assert lines[bottom - 1].endswith("│ 0.05")
    assert lines[bottom + 1].split() == ["1", "step", "20"]
    assert "loss" in lines[bottom + 2]


def test_show_long_curve_keeps_every_peak_and_end(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        for step in range(1, 2001):
            run.log_metrics({"loss": {778: 5.0, 1501: -3.0}.get(step, 1.0)}, step)
    lines = invoke("show", tmp_path).output.splitlines()
    (top,) = (number for number, line in enumerate(lines) if line.startswith("┌"))
    (bottom,) = (number for number, line in enumerate(lines) if line.startswith("└"))
    assert (lines[top + 1][-3:], lines[bottom - 1][-4:]) == ("│ 5", "│ -3")
    assert lines[bottom + 1].split() == ["1", "step", "2000"]


def test_show_metric_range_beyond_float_max_succeeds(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        for step, loss in enumerate((-1.7e308, 0.0, 1.7e308)):
            run.log_metrics({"loss": loss}, step)
    result = invoke("show", tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "1.7e+308" in result.output


def test_print_latest_many_keys_on_narrow_terminal_are_transposed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"epoch": step, "iteration": 10 * step} | {f"layer{n}.weight/norm": n / step for n in range(30)}
        for step in range(1, 30)
    ]
    print_latest(Console(width=80), "Last rows", rows)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert re.fullmatch("Last rows: \\d+ of 29", lines[1])
    assert lines[2].split()[0] == "epoch"
    assert lines[2].split()[-2:] == ["28", "29"]
    assert lines[3].split()[-2:] == ["280", "290"]
    assert lines[-1].split()[0] == "layer29.weight/norm"
    assert len(lines) == 3 + 31
    print_latest(Console(width=80), "Last rows", [{"epoch": 1, "loss": 0.5}])
    assert [line.split() for line in capsys.readouterr().out.splitlines()[2:]] == [["epoch", "loss"], ["1", "0.5"]]


def test_show_prints_location_and_rejected_events(run: Path) -> None:
    invoke("sync", run, "--to", "tensorboard")
    cursor = Cursor.load(run, "tensorboard")
    cursor.rejected = {str(seq): "The image is damaged." for seq in range(1, 13)} | {"9": "The text is too long."}
    CursorStore(run, "tensorboard").save(cursor)
    output = invoke("show", run).output
    assert f"tensorboard: open with: tensorboard --logdir {run.parent}" in output
    assert "Events 1, 2, 3, 4, 5, 6, 7, 8, 10 rejected by tensorboard: The image is damaged." in output
    assert "Event 9 rejected by tensorboard: The text is too long." in output
    assert "More events rejected by tensorboard: 2" in output
    shown = json.loads(invoke("show", run, "--json").output)
    (location,) = shown["locations"]
    assert location["command"] == f"tensorboard --logdir {run.parent}"
    assert len(shown["rejected"]["tensorboard"]) == 12


def test_show_prints_delivery_messages_above_level_info(run: Path) -> None:
    time = "2026-12-01 05:34:50,790"
    log = run / "delivery/log.txt"
    log.parent.mkdir(exist_ok=True)
    log.write_text(
        f"{time} INFO mlflow: creating the database x.db\n{time} WARNING mlflow: no INFO received\n\nclient text\n"
    )
    lines = [line for line in invoke("show", run).output.splitlines() if line.startswith("Delivery:")]
    assert [line.rstrip() for line in lines] == [
        f"Delivery: {time} WARNING mlflow: no INFO received",
        "Delivery:",
        "Delivery: client text",
    ]


@pytest.mark.parametrize(
    ("lost_events", "closed_reason", "cell"),
    [
        (3, None, "tensorboard: 3 events"),
        (0, "the run was deleted", "tensorboard: stopped"),
        (0, None, "tensorboard: end status"),
    ],
)
def test_list_names_pending_events_by_sink(run: Path, lost_events: int, closed_reason: str | None, cell: str) -> None:
    invoke("sync", run, "--to", "tensorboard")
    cursor = Cursor.load(run, "tensorboard")
    cursor.seq, cursor.position = cursor.seq - lost_events, cursor.position - lost_events
    cursor.closed_reason, cursor.end_status = closed_reason, None
    CursorStore(run, "tensorboard").save(cursor)
    assert invoke("list", run).stdout.splitlines()[1].endswith(f"  {cell}")
