"""Fixtures of the browser tests: two runs of the digits example, a browser, and the servers that show the runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser import pages
from tests.browser.training import FinishedTraining, finish, start
from tests.needs import check_requirement

if TYPE_CHECKING:
    from playwright.sync_api import Page

EPOCHS = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Run browser tests first. pytest-xdist then sends them to one worker, which creates the session fixtures once.
    items.sort(key=lambda item: item.get_closest_marker("browser") is None)


@pytest.fixture(scope="session")
def browser() -> None:
    """Skip or fail the test if Chromium or playwright is missing."""
    check_requirement(pages.find_missing_requirement())


@pytest.fixture(scope="session")
def trained(browser: None, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedTraining:
    """Uninterrupted run."""
    folder = tmp_path_factory.mktemp("browser") / "uninterrupted"
    return finish(start(folder, mlflow_server, "--epochs", str(EPOCHS)), folder, mlflow_server)


@pytest.fixture(scope="session")
def resumed(trained: FinishedTraining) -> FinishedTraining:
    """The same run, killed after the third epoch and resumed."""
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


# Module scope, because playwright keeps an event loop running as long as the browser is open.
@pytest.fixture(scope="module")
def page(browser: None) -> Iterator[Page]:
    with pages.open_page() as page:
        yield page


@pytest.fixture
def mlflow(page: Page, trained: FinishedTraining) -> pages.MLflowPage:
    return pages.MLflowPage(page, trained.server, trained.experiment)


@pytest.fixture(scope="module")
def board_server(trained: FinishedTraining, resumed: FinishedTraining) -> Iterator[str]:
    with pages.tensorboard(trained.folder.parent, runs=2) as uri:
        yield uri
