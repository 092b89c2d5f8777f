"""MLflow pages of a run in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import EPOCHS
from tests.browser.pages import MLflowPage
from tests.browser.sweep_page import log_sweeps, open_sweeps
from tests.browser.training import FinishedTraining

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LOSSES_AND_ACCURACY = ["train/loss", "val/loss", "val/accuracy"]


def test_run_list_shows_name_status_params_and_last_metrics(mlflow: MLflowPage, trained: FinishedTraining) -> None:
    (run,), statuses = mlflow.list_runs([*LOSSES_AND_ACCURACY, "Parameters"])
    assert run["attributes.`Run Name`"] == trained.name
    assert statuses == ["FINISHED"]
    assert {key: run[f"params.`{key}`"] for key in ("epochs", "lr", "seed")} == {
        "epochs": str(EPOCHS),
        "lr": "0.001",
        "seed": "0",
    }
    for key in LOSSES_AND_ACCURACY:
        assert float(run[f"metrics.`{key}`"]) == trained.rows[-1][key]


def test_run_page_shows_details_params_metrics_data_and_checkpoints(
    mlflow: MLflowPage, trained: FinishedTraining
) -> None:
    table = mlflow.open_run(trained.run_id)
    assert {key: float(table[key]) for key in LOSSES_AND_ACCURACY} == {
        key: trained.rows[-1][key] for key in LOSSES_AND_ACCURACY
    }
    assert (table["epochs"], table["lr"], table["seed"]) == (str(EPOCHS), "0.001", "0")
    for text in ("Finished", "digits.py", re.compile("^pte-tracking show "), re.compile(r"^digits \([0-9a-f]{36}\)$")):
        assert mlflow.page.get_by_text(text).first.is_visible(), text
    assert mlflow.read_outputs() == {f"snapshot_iter_{step}": str(step) for step, _ in trained.curve("val/loss")}


def test_checkpoint_list_shows_status_source_and_metrics(mlflow: MLflowPage, trained: FinishedTraining) -> None:
    shown = {row["name"]: row for row in mlflow.list_checkpoints()}
    assert sorted(shown) == sorted(f"snapshot_iter_{row['iteration']}" for row in trained.rows)
    for row in trained.rows:
        checkpoint = shown[f"snapshot_iter_{row['iteration']}"]
        assert checkpoint["status"] == "Ready"
        assert checkpoint["source_run_id"] == trained.name
        assert checkpoint["source"] == "digits.py"
        values = {key: float(value) for key, value in checkpoint.items() if key.startswith("metrics")}
        assert values == {
            f"metrics.{{&quot;metricKey&quot;:&quot;{key}&quot;}}": row[key] for key in LOSSES_AND_ACCURACY
        }


def test_charts_draw_every_data_point(mlflow: MLflowPage, trained: FinishedTraining) -> None:
    mlflow.open_charts(trained.run_id)
    for key in LOSSES_AND_ACCURACY:
        assert mlflow.read_curve(key) == trained.curve(key)


def test_images_are_shown_by_step_and_figures_as_artifacts(mlflow: MLflowPage, trained: FinishedTraining) -> None:
    mlflow.open_charts(trained.run_id)
    figure = mlflow.show_picture("val/confusion", 90)
    assert min(figure) > 100
    assert mlflow.show_picture("val/hardest", 45 * EPOCHS) == (128, 128)
    assert mlflow.open_artifact(trained.run_id, "figures/val/confusion.png") == figure


def test_resumed_run_appears_once_with_uninterrupted_curves(
    page: Page, resumed: FinishedTraining, trained: FinishedTraining
) -> None:
    mlflow = MLflowPage(page, resumed.server, resumed.experiment)
    (run,), statuses = mlflow.list_runs(["val/loss", "Parameters"])
    assert run["attributes.`Run Name`"] == resumed.name
    assert statuses == ["FINISHED"]
    mlflow.open_charts(resumed.run_id)
    for key in LOSSES_AND_ACCURACY:
        assert mlflow.read_curve(key) == resumed.curve(key) == trained.curve(key)


def test_run_list_nests_runs_below_their_groups(mlflow: MLflowPage, trained: FinishedTraining, tmp_path: Path) -> None:
    experiment = log_sweeps(tmp_path, trained.server)
    names = open_sweeps(mlflow.page, trained.server, experiment)
    trials = [f"trial-{number}" for number in (3, 2, 1, 0)]
    assert names == ["lr sweep", *trials, "momentum sweep", *trials]
