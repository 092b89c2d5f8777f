"""``pte-tracking import`` of MLflow runs, and delivery of imported runs to MLflow."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from torch.utils.tensorboard import SummaryWriter

import pte_tracking as pte
from tests.cli.invocation import invoke
from tests.cli.test_import_tensorboard import points
from tests.servers import free_port

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # Raised inside MLflow.


@pytest.fixture
def client(mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    return MlflowClient(mlflow_store)


def test_mlflow_run_keeps_points_params_tags_and_status(
    client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = client.create_run("0", run_name="old run", start_time=1_000_123).info.run_id
    metrics = [
        Metric("loss", 0.5, 1_001_001, 1),
        Metric("acc", 1.0, 1_001_001, 1),
        Metric("loss", math.inf, 1_002_002, 2),
        Metric("loss", math.nan, 1_003_003, 2),
        Metric("loss", 0.25, 1_004_004, -1),
    ]
    params = {"lr": "0.1", "layers": "3", "code": "007", "flag": "True", "empty": "None"}
    client.log_batch(run_id, metrics, [Param(*item) for item in params.items()], [RunTag("team", "vision")])
    client.log_text(run_id, "text", "notes.txt")
    client.set_terminated(run_id, "FAILED", end_time=1_009_000)
    result = invoke("import", f"runs:/{run_id}", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert f"runs:/{run_id}: its artifacts were not imported: notes.txt" in caplog.text
    (run,) = pte.open_runs(tmp_path / "run")
    assert (run.name, run.status, run.start_time) == ("old run", "FAILED", 1000.123)
    assert run.params == {"lr": 0.1, "layers": 3, "code": "007", "flag": True, "empty": None}
    assert run.tags == {"team": "vision", "imported_from": f"runs:/{run_id}"}
    stored = [(key, step, str(value), int(time * 1000)) for key, step, value, time in points(run)]
    assert sorted(stored[:2]) == [("acc", 1, "1.0", 1_001_001), ("loss", 1, "0.5", 1_001_001)]
    assert stored[2:] == [
        ("loss", 2, "inf", 1_002_002),
        ("loss", 2, "nan", 1_003_003),
        ("loss", -1, "0.25", 1_004_004),
    ]


def test_mlflow_active_run_is_imported_as_finished(
    client: MlflowClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = client.create_run("0").info.run_id
    assert invoke("import", f"mlflow:{run_id}", tmp_path / "run").exit_code == 0
    assert "is RUNNING in MLflow" in caplog.text
    (run,) = pte.open_runs(tmp_path / "run")
    assert run.status == "FINISHED"


def test_mlflow_missing_run_is_refused(client: MlflowClient, tmp_path: Path) -> None:
    result = invoke("import", f"runs:/{'0' * 32}", tmp_path / "run")
    assert result.exit_code == 1
    assert "has no such run. Check the ID" in result.output


def test_mlflow_missing_store_is_refused_and_not_created(tmp_path: Path) -> None:
    store = tmp_path / "missing.db"
    result = invoke("import", "runs:/1", tmp_path / "run", "--option", f"tracking_uri=sqlite:///{store}")
    assert result.exit_code == 1
    assert "the MLflow store does not exist" in result.output
    assert list(tmp_path.iterdir()) == []


def test_mlflow_unreachable_server_is_named(
    tmp_path: Path, mlflow_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    result = invoke("import", "runs:/1", tmp_path / "run", "--option", f"tracking_uri={uri}")
    assert result.exit_code == 1
    assert "Check that the server is running" in result.output
    assert "secret" not in result.output


def test_tensorboard_run_reaches_mlflow_with_equal_points(client: MlflowClient, tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "logs")) as writer:
        for step in range(1, 4):
            writer.add_scalar("loss", step / 4, step, walltime=1000 + step / 8)
            writer.add_scalar("accuracy", step / 2, step, walltime=1000 + step)
    assert invoke("import", tmp_path / "logs", tmp_path / "run").exit_code == 0
    synced = invoke("sync", tmp_path / "run", "--to", "mlflow")
    assert synced.exit_code == 0, synced.output
    (tracked,) = client.search_runs(["0"])
    assert tracked.info.status == "FINISHED"
    assert tracked.data.tags["imported_from"] == str(tmp_path / "logs")
    histories = {key: client.get_metric_history(tracked.info.run_id, key) for key in tracked.data.metrics}
    assert {
        key: [(point.step, point.value, point.timestamp) for point in history] for key, history in histories.items()
    } == {
        "loss": [(step, step / 4, 1_000_000 + step * 125) for step in range(1, 4)],
        "accuracy": [(step, step / 2, 1_000_000 + step * 1000) for step in range(1, 4)],
    }
