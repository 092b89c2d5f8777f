"""Backend contract for MLflow with PostgreSQL, which accepts fewer values than SQLite."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pte_backends.mlflow import MLflowSink
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun
from tests.mlflow_contract import MLflowServerContract

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("mlflow_environment")]


@pytest.fixture
def experiment() -> str:
    return uuid.uuid4().hex


def find_run(uri: str, experiment: str) -> Run:
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run


class TestPostgresContract(MLflowServerContract):
    @pytest.fixture
    def uri(self, real_server: str) -> str:
        return real_server


@pytest.mark.parametrize("kind", [events.Params, events.Tags])
def test_texts_rejected_by_postgres_are_replaced_and_delivered(
    kind: type[events.Params | events.Tags], real_server: str, experiment: str, tmp_path: Path
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(real_server, experiment))
    texts = {"zero": "a\0b", "wide": "ü" * 5000, "smile": "🙂", "empty": ""}
    recorded.journal.append(kind, texts)
    recorded.journal.append(events.Dataset, "a\0b", "\0", "\0", "\0")
    recorded.log(1, {"a": 1.0})
    recorded.end()
    run = find_run(real_server, experiment)
    assert run.data.metrics == {"a": 1.0}
    shown = run.data.params if kind is events.Params else run.data.tags
    assert {key: shown[key] for key in texts} == texts | {"zero": "a␀b"}
    assert [dataset_input.dataset.name for dataset_input in run.inputs.dataset_inputs] == ["a␀b"]


def test_run_name_beyond_limit_is_truncated(real_server: str, experiment: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(real_server, experiment, run_name="\0" + "ü" * 300))
    recorded.end()
    assert find_run(real_server, experiment).info.run_name == "␀" + "ü" * 249
