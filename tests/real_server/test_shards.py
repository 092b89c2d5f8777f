"""Sharded snapshots on an MLflow server: every file is in the object store, except those of pruned snapshots."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from pte_tracking import extensions
from pte_tracking._delivery.sync import sync
from tests.object_store import ObjectStore
from tests.ranks import snapshot_scenarios
from tests.ranks.components import RankDependentNet, make_training_manager
from tests.ranks.forked import on_ranks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]


def test_training_resumes_from_tracked_sharded_snapshot(
    real_server: str, bucket: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = uuid.uuid4().hex
    monkeypatch.setenv("MLFLOW_TRACKING_URI", real_server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    monkeypatch.setenv("SINKS", "json,mlflow")
    monkeypatch.setenv("N_RETAINS", "2")
    on_ranks(snapshot_scenarios.train_sharded, 2, tmp_path)
    assert sync(tmp_path / "run", timeout=30) == []

    client = MlflowClient(real_server)
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    stored_objects = {
        tuple(name.split("/")[-2:]): size
        for name, size in bucket.objects(f"{experiment_id}/").items()
        if "/models/" in name
    }
    assert stored_objects == {
        (path.parent.name, path.name): path.stat().st_size
        for step in (6, 8)
        for path in (tmp_path / "run" / f"snapshot_iter_{step}").iterdir()
    }

    (run,) = client.search_runs([experiment_id])
    net = RankDependentNet()
    optimizer, saved = torch.optim.Adam(net.parameters(), 0.01), extensions.snapshot(trigger=(2, "iteration"))
    manager = make_training_manager(tmp_path / "elsewhere", net, optimizer, saved, epochs=3)
    resumed = manager.resume(f"runs:/{run.info.run_id}")
    manager.close()
    assert resumed is not None
    assert (resumed.step, resumed.path) == (8, "snapshot_iter_8")
