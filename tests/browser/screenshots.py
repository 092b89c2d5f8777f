"""Regenerate docs/pictures: ``python -m tests.browser.screenshots`` or ``python -m nox -s screenshots``.

Arguments select groups of pictures: ``python -m tests.browser.screenshots plots mlflow``.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from tests import servers
from tests.browser import aim_page, extension_pictures, notebook, sweep_page, terminal
from tests.browser.pages import SIZE, MLflowPage, TensorBoardPage, find_missing_requirement, open_page, tensorboard
from tests.browser.trackio_page import trackio
from tests.browser.training import EXAMPLE, finish, start

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
EPOCHS = 20
GROUPS = ("plots", "terminal", "mlflow", "tensorboard", "media", "others", "notebook")


class Camera:
    """Camera for screenshots of a browser page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def save_screenshot(self, name: str, width: int, height: int) -> None:
        """Save a screenshot.

        Args:
            name: File name without the suffix.
            width: Width of the viewport in pixels.
            height: Height of the viewport in pixels.
        """
        self._page.set_viewport_size({"width": width, "height": height})
        self._page.mouse.move(0, 0)
        self._page.wait_for_timeout(2000)  # Wait for the end of animations.
        extension_pictures.save(Image.open(io.BytesIO(self._page.screenshot())), PICTURES / f"{name}.png")
        self._page.set_viewport_size(SIZE)


def photograph(folder: Path, groups: Collection[str]) -> None:
    template = folder / "template.db"
    servers.make_store(template)
    (folder / "server").mkdir()
    with servers.mlflow_server(folder / "server", template) as uri, open_page() as page:
        script = make_repository(folder / "code")
        process = start(folder / "digits", uri, "--epochs", str(EPOCHS), script=script)
        training = finish(process, folder / "digits", uri)
        camera = Camera(page)
        if "mlflow" in groups:
            photograph_models(camera, page, folder / "models", uri)
            photograph_mlflow(camera, MLflowPage(page, uri, training.experiment), training.run_id)
            sweep_page.open_sweeps(page, uri, sweep_page.log_sweeps(folder / "sweeps", uri))
            camera.save_screenshot("mlflow-sweep", 1280, 640)
            photograph_system_metrics(camera, folder / "monitored", page, uri)
        if "terminal" in groups:
            shutil.copy(EXAMPLE, training.folder)
            screen = terminal.run_session(training.folder, "pte-tracking list", "pte-tracking show result")
            terminal.draw(PICTURES / "command-line.svg", "bash", screen)
            terminal.draw(PICTURES / "command-line-light.svg", "bash", screen, DEFAULT_TERMINAL_THEME)
            photograph_import(training.folder)
        if "tensorboard" in groups:
            with tensorboard(training.folder, runs=1) as address:
                photograph_tensorboard(camera, TensorBoardPage(page, address))
        if "media" in groups:
            photograph_media(camera, page, folder, uri)
        if "others" in groups:
            photograph_others(camera, page, training.folder)
        if "notebook" in groups:
            photograph_notebook(page, folder / "notebook")


def make_repository(folder: Path) -> Path:
    """Create a Git repository with a changed copy of the example, and return the copy."""
    folder.mkdir()
    script = folder / EXAMPLE.name
    shutil.copy(EXAMPLE, script)
    identity = ("-c", "user.name=Team", "-c", "user.email=team@example.org")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("remote", "add", "origin", "https://example.org/team/digits.git"),
        ("add", "."),
        (*identity, "commit", "-q", "-m", "Train on digits"),
    ):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)
    script.write_text(script.read_text() + "# changed\n")
    return script


def photograph_import(folder: Path) -> None:
    events = folder / "elsewhere" / "logs" / "digits"
    events.mkdir(parents=True)
    for path in (folder / "result").glob("events.out.tfevents.*"):
        shutil.copy(path, events)
    screen = terminal.run_session(
        folder / "elsewhere",
        "pte-tracking import logs/digits results/digits",
        "pte-tracking list results",
        "pte-tracking sync results/digits --to mlflow",
    )
    terminal.draw(PICTURES / "import.svg", "bash", screen)


def photograph_mlflow(camera: Camera, mlflow: MLflowPage, run_id: str) -> None:
    mlflow.list_runs(["train/loss", "val/loss", "val/accuracy", "Parameters"])
    camera.save_screenshot("mlflow-runs", 1340, 420)
    mlflow.open_run(run_id)
    camera.save_screenshot("mlflow-overview", 1280, 620)
    mlflow.open_charts(run_id)
    for key in ("val/confusion", "val/hardest"):
        mlflow.show_picture(key, 45 * EPOCHS)
    camera.save_screenshot("mlflow-run", 1280, 1060)
    mlflow.list_checkpoints()
    mlflow.toggle_columns(["Logged from", "Registered models", "Dataset"])
    camera.save_screenshot("mlflow-checkpoints", 1600, 640)


def photograph_system_metrics(camera: Camera, folder: Path, page: Page, uri: str) -> None:
    program = Path(__file__).with_name("system_metrics.py")
    training = finish(start(folder, uri, "25", script=program), folder, uri)
    MLflowPage(page, uri, training.experiment).open_system_metrics(training.run_id)
    camera.save_screenshot("system", 1280, 1000)


def photograph_models(camera: Camera, page: Page, folder: Path, uri: str) -> None:
    folder.mkdir()
    environment = os.environ | servers.MLFLOW_ENVIRONMENT | {"MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, str(EXAMPLE.with_name("export_model.py")), "--epochs", "6"]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=200)
    page.goto(f"{uri}/#/models/digits")
    page.get_by_text("Version 1", exact=True).first.wait_for()
    page.get_by_text("pte.best").first.wait_for()
    camera.save_screenshot("mlflow-registered-model", 1640, 638)


def photograph_tensorboard(camera: Camera, board: TensorBoardPage) -> None:
    board.open_scalars()
    board.collapse("epoch")
    camera.save_screenshot("tensorboard-scalars", 1440, 880)
    board.open_layout()
    camera.save_screenshot("tensorboard-custom-scalars", 1440, 680)
    board.open_images()
    camera.save_screenshot("tensorboard-images", 1440, 720)
    board.open_histograms()
    camera.save_screenshot("tensorboard-histograms", 1440, 800)
    board.open_hparams()
    camera.save_screenshot("tensorboard-hparams", 1640, 540)
    board.open_texts()
    camera.save_screenshot("tensorboard-text", 1000, 900)


def photograph_media(camera: Camera, page: Page, folder: Path, uri: str) -> None:
    training = finish(
        start(folder / "media", uri, "--sinks", "json", "tensorboard", "mlflow", script=EXAMPLE.with_name("media.py")),
        folder / "media",
        uri,
    )
    with tensorboard(training.folder, runs=1) as address:
        TensorBoardPage(page, address).open_sounds()
        camera.save_screenshot("tensorboard-audio", 1100, 420)
    MLflowPage(page, uri, training.experiment).open_table(training.run_id, "tables/hardest tones.json")
    camera.save_screenshot("mlflow-table", 1520, 560)


def photograph_others(camera: Camera, page: Page, folder: Path) -> None:
    with trackio(folder, "digits") as address:
        page.goto(address)
        page.get_by_text("accuracy", exact=True).first.wait_for()
        camera.save_screenshot("trackio-run", 1280, 930)
    with aim_page.aim_server(folder / "result") as address:
        aim_page.open_metrics(page, address, ["train/loss", "val/accuracy"])
        camera.save_screenshot("aim-run", 1280, 710)


def photograph_notebook(page: Page, folder: Path) -> None:
    folder.mkdir()
    shutil.copy(EXAMPLE, folder)
    with notebook.jupyterlab(folder) as address:
        page.set_viewport_size({"width": 1000, "height": 2000})
        notebook.run_cell(page, address)
        output = page.locator(".jp-Cell-outputWrapper").first.screenshot()
        extension_pictures.save(Image.open(io.BytesIO(output)), PICTURES / "notebook.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"one of {', '.join(GROUPS)}; all by default")
    selected = parser.parse_args().groups or GROUPS
    if unknown := set(selected) - set(GROUPS):
        parser.error(f"unknown groups: {', '.join(sorted(unknown))}")
    if reason := find_missing_requirement():
        sys.exit(reason)
    PICTURES.mkdir(exist_ok=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as temporary:
        if {"plots", "terminal"}.intersection(selected):
            (Path(temporary) / "extensions").mkdir()
            extension_pictures.draw(Path(temporary) / "extensions", PICTURES, selected)
        if set(selected) - {"plots"}:
            photograph(Path(temporary), selected)
