"""Complete training with an MLflow server that uses PostgreSQL and an object store."""

from __future__ import annotations

import math
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pte_tracking._delivery.sync import sync
from tests.object_store import ObjectStore
from tests.postgres import Postgres
from tests.real_server.training import ARTIFACT, ITERATIONS, KILLED_IN, get_value

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]
SCRIPT = Path(__file__).with_name("training.py")


@pytest.mark.parametrize(
    ("ending", "last", "status", "snapshots"),
    [("close", ITERATIONS, "FINISHED", {250, 300}), ("kill", KILLED_IN, "KILLED", {50, 100})],
)
def test_training_events_are_stored_exactly_once(
    ending: str,
    last: int,
    status: str,
    snapshots: set[int],
    real_server: str,
    database: Postgres,
    bucket: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = uuid.uuid4().hex
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "run"), real_server, ending]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == (-9 if ending == "kill" else 0), done.stderr
    assert sync(tmp_path / "run", timeout=30) == []

    client = MlflowClient(real_server)
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    (run,) = client.search_runs([experiment_id])
    assert (run.info.status, run.data.params) == (status, {"lr": "0.1"})

    # Query the table directly, because the MLflow API hides duplicates.
    rows = database.query(
        f"SELECT step, value, is_nan FROM metrics WHERE run_uuid = '{run.info.run_id}' AND key = 'loss' ORDER BY step",
        "mlflow",
    )
    assert [step for step, *_ in rows] == [*range(1, last + 1)]
    for step, number, is_nan in rows:
        assert is_nan == math.isnan(get_value(step))
        assert is_nan or number == get_value(step)

    models = client.search_logged_models([experiment_id])
    assert {(model.name, model.status) for model in models} == {
        (f"snapshot_iter_{step}", "READY") for step in snapshots
    }
    stored_objects = bucket.objects(f"{experiment_id}/")
    stored_snapshots = {name.rpartition("/")[2]: size for name, size in stored_objects.items() if "/models/" in name}
    assert stored_snapshots == {
        f"snapshot_iter_{step}": (tmp_path / f"run/snapshot_iter_{step}").stat().st_size for step in snapshots
    }

    for artifact_name, local_path in {
        "figures/plot.png": f"figures/plot/step_{last // 100 * 100}.png",
        f"a directory/{ARTIFACT}": ARTIFACT,
    }.items():
        assert f"{experiment_id}/{run.info.run_id}/artifacts/{artifact_name}" in stored_objects
        fetched = Path(client.download_artifacts(run.info.run_id, artifact_name, str(tmp_path)))
        assert fetched.read_bytes() == (tmp_path / "run" / local_path).read_bytes()
