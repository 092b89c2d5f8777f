"""Counts that ``benchmarks/many_runs.py`` reads from a server and from PostgreSQL, for a known load."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pte_backends.mlflow import MLflowSink
from pte_tracking.testing import RecordedRun
from tests import servers
from tests.needs import check_requirement
from tests.postgres import find_missing_requirement, postgres

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Any:
    check_requirement(find_missing_requirement())
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("_counts")


def test_access_log_counts_all_requests_connections_and_errors(
    counts: Any, mlflow_template: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    with servers.mlflow_server(folder, mlflow_template) as uri, servers.Proxy(urlsplit(uri).port or 0) as proxy:
        recorded = RecordedRun(tmp_path / "run", MLflowSink(proxy.uri, "new"))
        recorded.log(1, {"a": 1.0})
        recorded.end()
    endpoints = [line.split()[1].partition("mlflow/")[2].partition("?")[0] for line in proxy.requests]
    log = counts.read_access_log(folder / "server.log")
    assert sorted(log.requests.elements()) == sorted(endpoints)
    assert len(log.clients) == len(endpoints)  # The proxy opens a connection for each request.
    assert log.failures == {"404": 1}  # The experiment does not exist before its creation.
    assert not counts.read_access_log(folder / "server.log", (folder / "server.log").stat().st_size).requests


def test_statements_count_points_rows_and_commits_of_mlflow_only(counts: Any) -> None:
    with postgres(fsync="off", **counts.SETTINGS) as database:
        for name in ("mlflow", "other"):
            database.create(name)
            database.query("CREATE TABLE metrics (value integer)", name)
        before = counts.count_statements(database)
        load = "BEGIN; INSERT INTO metrics VALUES (1), (2); UPDATE metrics SET value = 3; COMMIT"
        for name in ("mlflow", "other"):
            database.query(load, name)
        statements = counts.count_statements(database).since(before)
    assert statements[:4] == (4, 1, 2, 4)
    assert statements.log_bytes > 0
