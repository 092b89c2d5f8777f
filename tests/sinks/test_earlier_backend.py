"""A backend that was written before sinks could declare what they show passes the contract tests unchanged.

``earlier_backend/pte_sqlite.py`` is a copy of the example at that time. Do not adapt it to a later interface.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking.sinks import Sink
from pte_tracking.testing import Points, SinkContract
from tests.cli.invocation import invoke

SOURCE = Path(__file__).parent / "earlier_backend" / "pte_sqlite.py"


@pytest.fixture(scope="module", autouse=True)
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Install the backend, also for new processes, and return its module."""
    folder = tmp_path_factory.mktemp("earlier")
    shutil.copy(SOURCE, folder)
    info = folder / "pte_sqlite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pte-sqlite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pte_tracking.sinks]\nsqlite = pte_sqlite:SqliteSink\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield importlib.import_module("pte_sqlite")


class TestEarlierBackend(SinkContract):
    large_run_rows = 100
    generated_runs = 5

    @pytest.fixture(autouse=True)
    def _module(self, sqlite: Any) -> None:
        self.module = sqlite

    def make_sink(self, folder: Path) -> Sink:
        sink: Sink = self.module.SqliteSink(str(folder / "runs.db"))
        return sink

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        points: Points = {}
        database = sqlite3.connect(sink.path)  # type: ignore[attr-defined]
        for key, step, value in database.execute("SELECT key, step, value FROM points ORDER BY step"):
            points.setdefault(key, []).append((step, float("nan") if value is None else value))
        database.close()
        return points


def test_run_with_earlier_backend_is_delivered_shown_and_listed(
    tmp_path: Path, sqlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    database = str(tmp_path / "runs.db")
    with pte.Run(tmp_path / "run", sinks=["json", sqlite.SqliteSink(database)]) as run:
        run.log_metrics({"loss": 0.5}, 1)
        run.log_text("note", "a text", 1)
    assert invoke("sync", tmp_path / "run").exit_code == 0
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT key, step, value FROM points").fetchall() == [("loss", 1, 0.5)]
    output = invoke("show", tmp_path / "run").output
    assert "Sinks: json, sqlite" in output
    assert "Not shown by sqlite" not in output
    (line,) = (line for line in invoke("backends").output.splitlines() if line.startswith(" sqlite "))
    assert line.split() == ["sqlite", "pte-sqlite", "1.0", "delivery", "yes", "-"]
