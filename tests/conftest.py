"""Fixtures shared by several test directories."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

from pte_tracking._runs.live_runs import _runs
from pte_tracking._store.lock import Lock
from tests import servers
from tests.needs import check_requirement
from tests.object_store import BUCKET, ObjectStore, object_store
from tests.postgres import Postgres, find_missing_requirement, postgres

# The speed and load of the machine must not fail property tests.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Trackio reads the variable when it is imported. The directory is removed when the tests end.
_trackio = tempfile.TemporaryDirectory(prefix="trackio-")
os.environ["TRACKIO_DIR"] = _trackio.name

# The provenance would add events to the journal of each run, at any time. The tests of the provenance record it.
os.environ["PTE_TRACKING_PROVENANCE"] = "off"


#: Tests that take longest. They start first, so that none of them runs alone at the end.
_LONGEST = {
    "test_killed_and_resumed_run_equals_uninterrupted_run",
    "test_training_after_loss_of_power_resumes_from_the_newest_snapshot_and_loses_no_flushed_event",
    "test_runs_one_after_the_other_leave_nothing_behind",
    "test_rank_killed_during_snapshot_resumes_to_same_result",
    "test_example_backend_installs_passes_contract_and_delivers_run",
    "test_ddp_two_ranks_form_one_run_that_one_rank_resumes",
    "test_restarted_group_resumes_same_run",
    "test_large_run_is_stored_completely",
}


def pytest_configure() -> None:
    """Receive interrupts, which a shell without job control ignores in its background processes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: getattr(item, "originalname", "") not in _LONGEST)


def pytest_collection_finish() -> None:
    """Exempt the imported modules and the collected tests from garbage collection, which they make slow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def end_runs() -> Iterator[None]:
    """End runs that a test leaves open, so that they do not take part in the next test."""
    yield
    for run in [run for run in _runs if run.is_open]:
        with contextlib.suppress(Exception):
            run.close()


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Empty MLflow store. Tests copy it, because creating one takes seconds."""
    # The processes of pytest-xdist share the parent of their directories.
    is_distributed = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp().parent if is_distributed else tmp_path_factory.mktemp("mlflow-template")
    path, lock = folder / "mlflow-template.db", Lock(folder / "mlflow-template.lock", timeout=120)
    try:
        if not path.exists():
            servers.make_store(folder / "mlflow-incomplete.db")
            (folder / "mlflow-incomplete.db").rename(path)
    finally:
        lock.release()
    return path


@pytest.fixture
def mlflow_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Environment without MLflow settings, in an empty working directory."""
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_", "PTE_MLFLOW_"))]:
            del os.environ[name]
        os.environ.update(servers.MLFLOW_ENVIRONMENT)
        monkeypatch.chdir(tmp_path)
        yield


@pytest.fixture
def mlflow_store(mlflow_template: Path, tmp_path: Path, mlflow_environment: None) -> str:
    """URI of an empty MLflow store for one test."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    return f"sqlite:///{servers.copy_store(mlflow_template, folder)}"


@pytest.fixture(scope="session")
def mlflow_server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of an MLflow server for all tests. Each test creates its own experiments."""
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow-server"), mlflow_template) as uri:
        yield uri


@pytest.fixture(scope="session")
def database() -> Iterator[Postgres]:
    """PostgreSQL server. ``real_server`` uses its database ``mlflow``."""
    check_requirement(find_missing_requirement())
    with postgres(fsync="off") as server:
        yield server


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """S3 object store with one bucket."""
    with object_store(tmp_path_factory.mktemp("object-store")) as store:
        yield store


@pytest.fixture(scope="session")
def real_server(database: Postgres, bucket: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of an MLflow server with PostgreSQL that stores artifacts in the object store."""
    folder = tmp_path_factory.mktemp("real-server")
    with servers.serve(folder, database.create("mlflow"), f"s3://{BUCKET}", bucket.environment) as uri:
        yield uri
