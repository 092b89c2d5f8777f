"""The contract of backends at an MLflow server; which one, says a subclass by its fixture ``uri``."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pte_backends.mlflow import MLflowSink
from pte_tracking.sinks import Sink
from pte_tracking.testing import Points, SinkContract


def points_in(uri: str, experiment: str) -> Points:
    """All points of the one run of an experiment."""
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {
        key: sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


class MLflowServerContract(SinkContract):
    keeps_non_finite = False
    many_rows = 2_000  # a million take minutes
    many_values = 2
    generated_runs = 3

    @pytest.fixture(autouse=True)
    def _server(self, uri: str) -> None:
        self._uri = uri

    def make_sink(self, folder: Path) -> Sink:
        return MLflowSink(self._uri, uuid.uuid4().hex)

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        assert isinstance(sink, MLflowSink)
        assert sink.experiment
        return points_in(self._uri, sink.experiment)
