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
from tests.mlflow_contract import read_shown_kinds

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

    def find_source(self, sink: Sink, run_directory: Path) -> tuple[str, Mapping[str, str]]:
        return f"runs:/{self._find_run(run_directory).info.run_id}", {"tracking_uri": self.store}

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        return read_shown_kinds(MlflowClient(self.store), self._find_run(run_directory))

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
