"""Two trainings of the digits example, and the browser that looks at them: whole, and killed and gone on with."""

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
    # Of several processes that share the tests, the first then gets all of these, and what they need is made once.
    items.sort(key=lambda item: item.get_closest_marker("browser") is None)


@pytest.fixture(scope="session")
def browser() -> None:
    """There is a browser; where there must be one, to be without it is a failure."""
    check_requirement(pages.find_missing_requirement())


@pytest.fixture(scope="session")
def trained(browser: None, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> FinishedTraining:
    """A training from beginning to end."""
    folder = tmp_path_factory.mktemp("browser") / "whole"
    return finish(start(folder, mlflow_server, "--epochs", str(EPOCHS)), folder, mlflow_server)


@pytest.fixture(scope="session")
def resumed(trained: FinishedTraining) -> FinishedTraining:
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
def mlflow(page: Page, trained: FinishedTraining) -> pages.MLflowPage:
    return pages.MLflowPage(page, trained.server, trained.experiment)


@pytest.fixture(scope="module")
def board_server(trained: FinishedTraining, resumed: FinishedTraining) -> Iterator[str]:
    with pages.tensorboard(trained.folder.parent, runs=2) as uri:
        yield uri
