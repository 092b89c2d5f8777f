"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from tests import servers


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store, to be copied."""
    path = tmp_path_factory.mktemp("mlflow-template") / "mlflow.db"
    servers.make_store(path)
    return path


@pytest.fixture
def mlflow_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A quiet MLflow that knows of no store yet, in a folder of its own."""
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_", "PTE_MLFLOW_"))]:
            del os.environ[name]
        os.environ.update(servers.MLFLOW_ENVIRONMENT)
        monkeypatch.chdir(tmp_path)
        yield


@pytest.fixture
def mlflow_store(mlflow_template: Path, tmp_path: Path, mlflow_environment: None) -> str:
    """The URI of an empty MLflow store of the test's own."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    return f"sqlite:///{servers.copy_store(mlflow_template, folder)}"


@pytest.fixture(scope="session")
def mlflow_server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of an MLflow server that several tests share: each uses experiments of its own."""
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow-server"), mlflow_template) as uri:
        yield uri
