"""Aim's web page of a run."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests import servers
from tests.cli.invocation import invoke

if TYPE_CHECKING:
    from playwright.sync_api import Page


@contextlib.contextmanager
def aim_server(run_directory: Path) -> Iterator[str]:
    """Deliver a run to a new Aim repository next to its directory, run ``aim up``, and yield the address of the run."""
    repository = run_directory.parent / "aim"
    repository.mkdir()
    options = (f"repo={repository}", "experiment=digits")
    result = invoke("sync", run_directory, "--to", "aim", "--option", options[0], "--option", options[1])
    assert result.exit_code == 0, result.output
    run_hash = json.loads((run_directory / "run.json").read_text())["id"]
    port = servers.free_port()
    command = [str(Path(sys.executable).parent / "aim"), "up", "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with servers.server_process(
        [*command, "--repo", str(repository), "--yes"], repository, f"{address}/api/runs/{run_hash}/info", None
    ):
        yield f"{address}/runs/{run_hash}"


def open_metrics(page: Page, address: str, names: list[str]) -> None:
    """Open the charts of a run."""
    page.goto(f"{address}/metrics")
    page.get_by_text("Skip", exact=True).click()  # closes the invitation to the community
    for name in names:
        page.get_by_text(name, exact=True).first.wait_for()
