"""Two trainings of the digits example, and the browser that looks at them: whole, and killed and gone on with."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import servers
from tests.browser import pages

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.py"
EPOCHS = 6


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that is over.

    Attributes:
        folder: The folder above the run's.
        server: The MLflow server that it was delivered to.
        experiment: Its experiment's id there.
        run_id: Its run's id there.
    """

    folder: Path
    server: str
    experiment: str
    run_id: str

    @property
    def name(self) -> str:
        name: str = json.loads((self.folder / "result" / "run.json").read_text())["name"]
        return name

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The log."""
        rows: list[dict[str, Any]] = json.loads((self.folder / "result" / "log").read_text())
        return rows

    def curve(self, key: str) -> list[tuple[int, float]]:
        return [(row["iteration"], row[key]) for row in self.rows]


def start(folder: Path, server: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the example, delivering to an experiment that is called as the folder is."""
    folder.mkdir(exist_ok=True)
    environment = {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": folder.name}
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [sys.executable, str(EXAMPLE), *arguments],
            cwd=folder,
            env={**os.environ, **servers.MLFLOW_ENVIRONMENT, **environment},
            stdout=output,
            stderr=output,
        )


def finish(training: subprocess.Popen[bytes], folder: Path, server: str) -> Training:
    """Wait for the example and look up where it was delivered to."""
    assert training.wait(100) == 0, (folder / "output.txt").read_text()
    from mlflow import MlflowClient

    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(folder.name).experiment_id
    (run,) = client.search_runs([experiment])
    return Training(folder, server, experiment, run.info.run_id)


@pytest.fixture(scope="session")
def browser() -> None:
    """There is a browser; where there must be one, to be without it is a failure."""
    reason = pages.missing()
    if reason and os.environ.get("PTE_REQUIRE_BROWSER"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def trained(browser: None, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training from beginning to end."""
    folder = tmp_path_factory.mktemp("browser") / "whole"
    return finish(start(folder, mlflow_server, "--epochs", str(EPOCHS)), folder, mlflow_server)


@pytest.fixture(scope="session")
def resumed(trained: Training) -> Training:
    """The same training, killed on its way and gone on with."""
    folder = trained.folder.parent / "killed"
    killed = start(folder, trained.server, "--epochs", "1000")
    deadline = time.monotonic() + 60
    while not (folder / "result" / "snapshot_iter_135").exists():
        assert killed.poll() is None, (folder / "output.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    return finish(start(folder, trained.server, "--epochs", str(EPOCHS), "--resume"), folder, trained.server)


# One for each module: a browser of this kind leaves an event loop running as long as it is open.
@pytest.fixture(scope="module")
def page(browser: None) -> Iterator[Page]:
    with pages.open_page() as page:
        yield page


@pytest.fixture
def mlflow(page: Page, trained: Training) -> pages.MLflow:
    return pages.MLflow(page, trained.server, trained.experiment)


@pytest.fixture(scope="module")
def board_server(trained: Training, resumed: Training) -> Iterator[str]:
    with pages.tensorboard(trained.folder.parent) as uri:
        yield uri
