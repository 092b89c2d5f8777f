"""The MLflow backend keeps the contract, on a local store."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pte_mlflow import MLflowSink
from pte_tracking.runs.sink import Sink
from pte_tracking.testing import Points, SinkContract


class OnAStore(SinkContract):
    keeps_non_finite = False  # MLflow itself stores the infinities as the largest number
    many_rows = 3000

    @pytest.fixture(autouse=True)
    def _store(self, mlflow_store: str) -> None:
        self.store = mlflow_store

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        client = MlflowClient(self.store)
        # A superseded run is there too after a fork.
        run, *_ = client.search_runs(["0"], "tags.`pte.superseded` != 'true'") or client.search_runs(["0"])
        return {
            key: sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
        }


class TestKeeping(OnAStore):
    def make_sink(self, folder: Path) -> Sink:
        return MLflowSink(tracking_uri=self.store)
