"""Table of the runs of two sweeps in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from tests.browser.pages import MLflowPage, wait_until_stable

if TYPE_CHECKING:
    from playwright.sync_api import Page

#: Returns the names in the order of the rows. The page appends new rows to the document.
_READ_NAMES = """cells => {
    const number = cell => Number(cell.closest("[row-index]").getAttribute("row-index"));
    return cells.sort((a, b) => number(a) - number(b)).map(cell => cell.innerText.trim().split("\\n").pop());
}"""


def log_sweeps(folder: Path, uri: str) -> str:
    """Log the runs of two groups, and return the ID of their MLflow experiment."""
    for group, name in (("momentum sweep", "momentum"), ("lr sweep", "lr")):
        for number, value in enumerate((0.3, 0.1, 0.03, 0.01)):
            directory = folder / group / f"trial-{number}"
            sink = MLflowSink(uri, "sweeps")
            with pte.Run(directory, sinks=[sink], params={name: value}, group=group, name=directory.name) as run:
                for step in range(1, 4):
                    run.log_metrics({"val/loss": value / step + number / 40}, step)
    from mlflow import MlflowClient

    experiment = MlflowClient(uri).get_experiment_by_name("sweeps")
    assert experiment is not None
    return str(experiment.experiment_id)


def open_sweeps(page: Page, uri: str, experiment: str) -> list[str]:
    """Open the table of runs, show the children of both groups, and return the names of the runs in their order."""
    MLflowPage(page, uri, experiment).list_runs(["val/loss", "Parameters"])
    names = page.locator("[role=gridcell][col-id='attributes.`Run Name`']")
    for number in (1, 0):  # From the last one on, because the children move the rows below them.
        names.nth(number).locator("button").first.click()
        names.filter(has_text="trial-3").nth(1 - number).wait_for()

    def read() -> list[str]:
        shown: list[str] = names.evaluate_all(_READ_NAMES)
        return shown

    return wait_until_stable(page, read)
