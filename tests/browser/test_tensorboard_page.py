"""TensorBoard pages of runs in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import EPOCHS
from tests.browser.pages import TensorBoardPage
from tests.browser.training import FinishedTraining

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LAST = 45 * EPOCHS
RUNS = ["killed/result", "uninterrupted/result"]


@pytest.fixture
def board(page: Page, board_server: str) -> TensorBoardPage:
    return TensorBoardPage(page, board_server)


def test_scalars_page_groups_tags_and_draws_one_curve_per_run(
    board: TensorBoardPage, trained: FinishedTraining, resumed: FinishedTraining
) -> None:
    assert board.open_scalars() == {
        "epoch": ["epoch"],
        "train": ["train/loss"],
        "val": ["val/accuracy", "val/loss"],
    }
    for tag in ("train/loss", "val/loss", "val/accuracy"):
        shown = board.read_curves(tag)
        assert sorted(shown) == RUNS
        for run in (trained, resumed):
            steps, values = zip(*run.curve(tag), strict=True)
            drawn_steps, drawn_values = zip(*shown[f"{run.folder.name}/result"], strict=True)
            assert drawn_steps == steps
            assert drawn_values == pytest.approx(values)


def test_custom_scalars_chart_combines_training_and_validation_loss(board: TensorBoardPage) -> None:
    assert board.open_layout() == {
        "loss": sorted(f"{key} ({run})" for key in ("train/loss", "val/loss") for run in RUNS)
    }


def test_images_page_shows_last_images_and_figures(board: TensorBoardPage) -> None:
    shown = board.open_images()
    assert {(tag, step) for tag, step, _ in shown} == {("val/confusion", LAST), ("val/hardest", LAST)}
    assert len(shown) == 2 * len(RUNS)
    assert all(size == (128, 128) if tag == "val/hardest" else min(size) > 100 for tag, _, size in shown)


def test_histograms_page_shows_weights_and_gradients_of_every_epoch(board: TensorBoardPage) -> None:
    drawn = board.open_histograms()
    assert {"0.weight/data", "0.weight/grad"} <= drawn.keys()
    assert set(drawn.values()) == {EPOCHS}


def test_hparams_page_shows_values_last_metrics_and_status(
    board: TensorBoardPage, trained: FinishedTraining, resumed: FinishedTraining
) -> None:
    texts, statuses = board.open_hparams()
    assert statuses == ["STATUS_SUCCESS"] * 2
    assert {"epochs", "lr", "seed", "train/loss", "val/loss", "val/accuracy"} <= set(texts)
    for run in (trained, resumed):
        position = texts.index(run.name)
        assert [float(text) for text in texts[position + 1 : position + 4]] == [EPOCHS, 0.001, 0]
        last = [run.rows[-1][key] for key in ("epoch", "train/loss", "val/accuracy", "val/loss")]
        assert [float(text) for text in texts[position + 4 : position + 8]] == pytest.approx(last, rel=1e-4)


def test_text_page_describes_model_and_dataset(board: TensorBoardPage) -> None:
    texts = board.open_texts()
    assert "21,578 parameters" in texts["model"]
    assert "Conv2d(1, 32, kernel_size=(3, 3)" in texts["model"]
    assert "source: sklearn" in texts["dataset/train/digits"]
