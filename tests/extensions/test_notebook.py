"""Tests of the output in notebooks."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.extensions import print_report
from pte_tracking.extensions._columns import Columns
from pte_tracking.extensions._notebook import NotebookOutput, NotebookTable, in_notebook

CELL = """
import pte_tracking as pte
import torch
from pte_tracking import extensions
log = extensions.LogReport(trigger=(5, "iteration"))
def check(x):
    pte.report({"val/x": x})
evaluator = extensions.Evaluator([torch.zeros(1)] * 6, torch.nn.Identity(), check, progress_bar=True)
plot = extensions.PlotReport("<b>", trigger=(5, "iteration"))
reports = [evaluator, log, extensions.PrintReport(["iteration", "<b>"]), plot, extensions.ProgressBar()]
manager = pte.ExtensionsManager({}, 4, reports, iters_per_epoch=20, out_dir=OUT)
for _ in manager.batches(range(20)):
    with manager.run_iteration():
        pte.report({"<b>": 0.5})
"""


@pytest.mark.slow
def test_notebook_shows_one_table_one_plot_and_two_bars(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipywidgets")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"OUT = {str(tmp_path)!r}{CELL}")])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()

    outputs = notebook.cells[0].outputs
    assert {output.output_type for output in outputs} == {"display_data"}
    shown: list[Any] = [output.data for output in outputs]
    (table,) = [data for data in shown if "<table>" in data.get("text/html", "")]
    rows = re.findall(r"<td>(.*?)</td><td>(.*?)</td>", table["text/html"])
    assert rows == [(str(iteration), "0.5") for iteration in range(5, 85, 5)]
    assert "<th>iteration</th><th>&lt;b&gt;</th>" in table["text/html"]
    assert table["text/plain"].splitlines()[:2] == ["iteration   <b>", "5           0.5"]

    (plot,) = [data for data in shown if "image/png" in data]
    assert base64.b64decode(plot["image/png"]) == (tmp_path / "plot.png").read_bytes()

    assert len([data for data in shown if "application/vnd.jupyter.widget-view+json" in data]) == 2
    widgets = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"].state.values()
    bars = [widget.state for widget in widgets if widget.model_name == "FloatProgressModel"]
    assert sorted((bar.value, bar.max, bar.bar_style) for bar in bars) == [(6, 6, "success"), (80, 80, "success")]
    texts = "".join(widget.state.value for widget in widgets if widget.model_name == "HTMLModel").replace("\u2007", " ")
    assert "epoch 4/4  100%" in texts
    assert "80/80" in texts
    assert "validation: 100%" in texts


def test_notebook_table_keeps_newest_rows_only() -> None:
    pytest.importorskip("IPython")
    table = NotebookTable(Columns(None, "iteration"))
    table.show([{"iteration": iteration} for iteration in range(10_000)])
    assert table._html().count("<tr>") == 101
    assert "<td>9999</td>" in table._html()


def test_notebook_table_row_without_a_metric_in_the_columns_is_skipped() -> None:
    table = NotebookTable(Columns(["epoch", "loss"], "epoch"))
    table.show([{"epoch": 1, "lr": 0.1}, {"epoch": 2, "loss": 0.5}])
    assert table._text().splitlines()[1:] == ["2           0.5"]


def test_notebook_table_shows_rows_of_frequent_updates_together(monkeypatch: pytest.MonkeyPatch) -> None:
    table = NotebookTable(Columns(None, "iteration"))
    shown: list[int] = []
    monkeypatch.setattr(table._output, "show", lambda representations: shown.append(len(table._rows)))
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    for iteration in range(3):
        table.show([{"iteration": iteration}])
        table.refresh()
    assert shown == [1]
    table.refresh(at_once=True)
    table.refresh(at_once=True)
    assert shown == [1, 3]


def test_print_report_in_notebook_snapshots_contain_no_displayed_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(print_report, "in_notebook", lambda: True)
    monkeypatch.setattr(NotebookOutput, "show", lambda output, representations: None)
    report = extensions.PrintReport()
    log = extensions.LogReport(trigger=(1, "iteration"))
    manager = pte.ExtensionsManager({}, 2, [log, report], iters_per_epoch=5, out_dir=tmp_path)
    for _ in manager.iterations(range(5)):
        pte.report({"x": 1.0})
        assert report.state_dict() == {}, "a resume would show these rows again"


def test_in_notebook_outside_notebook_returns_false() -> None:
    assert not in_notebook()
