"""Tests of the quickstart notebook."""

from __future__ import annotations

import copy
import random
import re
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from tests.notebooks import QUICKSTART, execute, read_notebook

#: Interrupts the cell to which it is prepended, as a user does, some seconds after the run has started.
INTERRUPT = """
import os, signal, threading, time

has_ended = threading.Event()

def interrupt():
    deadline = time.monotonic() + 60
    while not os.path.exists("quickstart/journal.jsonl") and time.monotonic() < deadline:
        time.sleep(0.001)
    # A cell that has ended is not interrupted: the interrupt would hit the kernel between two cells.
    if not has_ended.wait({seconds}):
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
"""


@pytest.fixture
def notebook() -> Any:
    for name in ("nbclient", "nbformat", "matplotlib", "pandas"):
        pytest.importorskip(name)
    return read_notebook()


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def find_cell(notebook: Any, text: str) -> Any:
    """Return the first cell whose code starts with a text."""
    return next(cell for cell in code_cells(notebook) if cell.source.startswith(text))


def read_texts(notebook: Any) -> list[str]:
    """Return the outputs of all cells as texts."""
    return [
        output.text if output.output_type == "stream" else output.data["text/plain"]
        for cell in code_cells(notebook)
        for output in cell.outputs
    ]


def epochs(folder: Path) -> list[float]:
    (run,) = pte.open_runs(folder)
    assert run.status == "FINISHED"
    column: list[float] = run.frame()["epoch"].tolist()
    return column


@pytest.mark.slow
def test_quickstart_executed_again_gives_the_stored_outputs(notebook: Any, tmp_path: Path) -> None:
    again, stored = read_texts(execute(notebook, tmp_path)), read_texts(notebook)
    assert len(again) == len(stored) == 7
    number = r"\d+\.\d+"  # may differ in the last digits on another processor
    assert [re.sub(number, "", text) for text in again] == [re.sub(number, "", text) for text in stored]
    losses, stored_losses = ([float(value) for value in re.findall(number, texts[0])] for texts in (again, stored))
    assert losses == pytest.approx(stored_losses, rel=0.2)
    assert epochs(tmp_path) == list(range(1, 9))


@pytest.mark.slow
def test_quickstart_each_cell_run_twice_gives_no_error(notebook: Any, tmp_path: Path) -> None:
    cells = code_cells(notebook)
    execute(notebook, tmp_path, [*(cell for cell in cells for _ in range(2)), *cells])
    assert epochs(tmp_path) == list(range(1, 9))


def read_rows(folder: Path) -> Any:
    return pte.open_runs(folder)[-1].frame().drop(columns=["elapsed_time", "time"], errors="ignore").to_dict("records")


@pytest.mark.slow
def test_quickstart_interrupted_at_any_time_and_run_again_equals_uninterrupted_one(
    notebook: Any, tmp_path: Path
) -> None:
    start, train = code_cells(notebook)[:2], find_cell(notebook, "train(max_epochs=5)")
    results = [find_cell(notebook, text) for text in ("run = ", "rows.plot")]
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    execute(notebook, tmp_path / "whole", [*start, train])
    cells = [*start]
    for seconds in (0.0, *(random.uniform(0.0, 0.6) for _ in range(7))):
        interrupted = copy.deepcopy(train)
        interrupted.source = INTERRUPT.format(seconds=seconds) + train.source + "\nhas_ended.set()"
        cells += [interrupted, *results]
    # Execution continues after each error, as a user does. The interrupts have to be the only errors.
    executed = execute(notebook, tmp_path / "parts", [*cells, *start, train], allow_errors=True)
    errors = [
        (number, output.ename, output.evalue)
        for number, cell in enumerate(executed.cells)
        for output in cell.outputs
        if output.output_type == "error"
    ]
    assert [error for error in errors if error[1] != "KeyboardInterrupt"] == []
    assert errors != []
    assert read_rows(tmp_path / "parts") == read_rows(tmp_path / "whole")
    assert epochs(tmp_path / "parts") == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_quickstart_results_ignore_other_runs_in_the_folder(notebook: Any, tmp_path: Path) -> None:
    with pte.Run(tmp_path / "other", sinks=[]) as other:
        other.log_metrics({"loss": 1.0}, 1)
    with pte.Run(tmp_path / "quickstart", sinks=[]) as earlier:  # moved to quickstart/previous
        earlier.log_metrics({"loss": 1.0}, 1)
    with pte.Run(tmp_path / "quickstart", sinks=[]) as last:
        last.log_metrics({"train/loss": 7.0}, 1)
    texts = read_texts(execute(notebook, tmp_path, [code_cells(notebook)[0], find_cell(notebook, "run = ")]))
    assert "7.0" in texts[1]


def test_quickstart_links_resolve(notebook: Any) -> None:
    texts = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)\s]+)\)", texts)
    assert len(links) >= 3
    assert [link for link in links if not (QUICKSTART.parent / link).is_file()] == []


def test_quickstart_outputs_are_complete_and_contain_no_path_of_a_machine(notebook: Any) -> None:
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"display_data", "execute_result", "stream"}
    assert [text for text in read_texts(notebook) if re.search(r"(^|[\s'\"])/\w", text)] == []
    assert [output for output in outputs if "image/png" in output.get("data", {})] != []
