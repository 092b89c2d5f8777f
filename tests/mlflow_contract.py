"""Contract tests on an MLflow server. Subclasses select the server with the fixture ``uri``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pte_backends.mlflow import MLflowSink
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract


def read_experiment_points(uri: str, experiment: str) -> Points:
    """Read all data points of the only run of an experiment."""
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {
        key: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }


def read_shown_kinds(client: MlflowClient, run: Run) -> Mapping[EventKind, Display | None]:
    """Find out which kinds of events of ``SinkContract.read_shown`` a run shows."""
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    for directory in ("folder", "images", "text/note", "tables"):
        files |= {file.path for file in client.list_artifacts(run.info.run_id, directory)}
    # MLflow's page and load_table() find the tables in this tag.
    tables = [entry["path"] for entry in json.loads(run.data.tags.get("mlflow.loggedArtifacts", "[]"))]
    # MLflow's page shows the files of log_image(key=, step=) as images of a run with this tag.
    images = " ".join(files) if run.data.tags["mlflow.loggedImages"] == "True" else ""
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    return {
        "metrics": "native" if run.data.metrics["a"] == 1.0 else None,
        "params": "native" if run.data.params["lr"] == "0.1" else None,
        "tags": "native" if run.data.tags["team"] == "vision" else None,
        "figure": "native" if "images/figures~loss+step+1+" in images else None,
        "image": "native" if "images/image+step+1+" in images else None,
        "histogram": "artifact" if "weights" in " ".join(files) else None,
        "text": "artifact" if "text/note/step_1.md" in files else None,
        "table": "native" if tables == ["tables/words.json"] and "tables/words.json" in files else None,
        "html": "artifact" if "page.html" in files else None,
        "audio": "artifact" if "sound.wav" in files else None,
        "video": "artifact" if "clip.gif" in files else None,
        "dataset": "native" if [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["digits"] else None,
        "artifact": "native" if "folder/file.txt" in files else None,
        "checkpoint": "native" if "snapshot" in [model.name for model in models] else None,
        "model": "native" if "main" in [model.name for model in models] else None,
        "status": "native" if run.info.status == "FINISHED" else None,
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

    def find_source(self, sink: Sink, run_directory: Path) -> tuple[str, Mapping[str, str]]:
        assert isinstance(sink, MLflowSink)
        client = MlflowClient(self._uri)
        (run,) = client.search_runs([client.get_experiment_by_name(sink.experiment).experiment_id])
        return f"runs:/{run.info.run_id}", {"tracking_uri": self._uri}

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        assert isinstance(sink, MLflowSink)
        client = MlflowClient(self._uri)
        (run,) = client.search_runs([client.get_experiment_by_name(sink.experiment).experiment_id])
        return read_shown_kinds(client, run)
