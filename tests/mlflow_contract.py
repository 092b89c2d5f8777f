"""Contract tests on an MLflow server. Subclasses select the server with the fixture ``uri``."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pte_backends.mlflow import MLflowSink
from pte_tracking.sinks import Sink
from pte_tracking.testing import Points, SinkContract


def read_experiment_points(uri: str, experiment: str) -> Points:
    """Read all data points of the only run of an experiment."""
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {
        key: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


class MLflowServerContract(SinkContract):
    keeps_non_finite = False
    large_run_rows = 2_000  # 1 million points take minutes.
    large_run_keys = 2
    generated_runs = 3

    @pytest.fixture(autouse=True)
    def _server(self, uri: str) -> None:
        self._uri = uri

    def make_sink(self, folder: Path) -> Sink:
        return MLflowSink(self._uri, uuid.uuid4().hex)

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        assert isinstance(sink, MLflowSink)
        assert sink.experiment
        return read_experiment_points(self._uri, sink.experiment)
