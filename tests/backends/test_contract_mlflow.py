"""Contract tests of the MLflow backend on a local store, for both values of on_rewind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pte_backends.mlflow import MLflowSink
from pte_backends.mlflow._runs import RUN_ID
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # Raised inside MLflow.


class LocalStoreContract(SinkContract):
    keeps_non_finite = False  # MLflow stores infinities as the largest float.
    generated_runs = 3
    # 100 requests. The time grows linearly, and MLflow needs minutes for 1 million points, nearly all in its own store.
    large_run_keys = 5

    @pytest.fixture(autouse=True)
    def _store(self, mlflow_store: str) -> None:
        self.store = mlflow_store

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        run = self._find_run(run_directory)
        client = MlflowClient(self.store)
        return {
            key: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
        }

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        run = self._find_run(run_directory)
        client = MlflowClient(self.store)
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        for directory in ("folder", "images", "text/note"):
            files |= {file.path for file in client.list_artifacts(run.info.run_id, directory)}
        # MLflow's page shows the files of log_image(key=, step=) as images of a run with this tag.
        images = " ".join(files) if run.data.tags["mlflow.loggedImages"] == "True" else ""
        models = client.search_logged_models(["0"], f"source_run_id = '{run.info.run_id}'")
        return {
            "metrics": "native" if run.data.metrics["a"] == 1.0 else None,
            "params": "native" if run.data.params["lr"] == "0.1" else None,
            "tags": "native" if run.data.tags["team"] == "vision" else None,
            "figure": "native" if "images/figures~loss+step+1+" in images else None,
            "image": "native" if "images/image+step+1+" in images else None,
            "histogram": "artifact" if "weights" in " ".join(files) else None,
            "text": "artifact" if "text/note/step_1.md" in files else None,
            "dataset": "native" if [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["digits"] else None,
            "artifact": "native" if "folder/file.txt" in files else None,
            "checkpoint": "native" if [model.name for model in models] == ["snapshot"] else None,
            "status": "native" if run.info.status == "FINISHED" else None,
        }

    def _find_run(self, run_directory: Path) -> Run:
        tracked_runs = MlflowClient(self.store).search_runs(
            ["0"], f"tags.`{RUN_ID}` = '{Manifest.load(run_directory).id}'"
        )
        # After a fork the experiment also contains the superseded runs.
        (run,) = (run for run in tracked_runs if "pte.superseded_by" not in run.data.tags)
        return run


class TestKeeping(LocalStoreContract):
    def make_sink(self, folder: Path) -> Sink:
        return MLflowSink(tracking_uri=self.store)

    @pytest.mark.slow
    def test_large_run_is_stored_completely(self, tmp_path: Path) -> None:
        super().test_large_run_is_stored_completely(tmp_path)


class TestForking(LocalStoreContract):
    large_run_rows = 3000  # Without a rewind there is no difference from TestKeeping.
    large_run_keys = 2

    def make_sink(self, folder: Path) -> Sink:
        return MLflowSink(tracking_uri=self.store, on_rewind="fork")
