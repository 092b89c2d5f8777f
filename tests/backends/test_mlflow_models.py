"""Exported models in MLflow: loading, registered versions, the alias of the best, interruptions, and rewinds."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from torch import nn

from pte_backends.mlflow import MLflowSink, _models
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store import events
from pte_tracking.extensions._traced_model import ModelInput, TracedModel, trace, write
from pte_tracking.sinks import BestMetric
from pte_tracking.testing import RecordedRun
from tests import servers
from tests.backends.logged_models import find_run, resume_run
from tests.object_store import BUCKET, ObjectStore

pytestmark = [
    pytest.mark.usefixtures("mlflow_environment"),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # Raised inside MLflow.
]

INPUTS = torch.linspace(-2, 2, 12).reshape(3, 4)


@dataclasses.dataclass
class Trained:
    model: nn.Module
    traced: TracedModel

    def outputs(self) -> torch.Tensor:
        with torch.no_grad():
            outputs: torch.Tensor = self.model(INPUTS)
        return outputs


@pytest.fixture(scope="module")
def trained() -> list[Trained]:
    """Two models with different weights."""
    models = [nn.Sequential(nn.Linear(4, 3), nn.Dropout()).eval() for _ in range(2)]
    return [Trained(model, trace(model, ModelInput(INPUTS[:1]))) for model in models]


@pytest.fixture(params=["store", pytest.param("server", marks=pytest.mark.slow)])
def uri(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(f"mlflow_{request.param}")


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Name of a registered model that no other test uses."""
    return f"digits {tmp_path.name}"


@pytest.fixture
def recorded(uri: str, tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", MLflowSink(uri, tmp_path.name))


@pytest.fixture(autouse=True)
def _restore_tracking_uri() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.callback(mlflow.set_tracking_uri, None)
        yield


def log_model(
    recorded: RecordedRun, trained: Trained, step: int, registered_name: str = "", best: float | None = None
) -> None:
    folder = recorded.directory / "artifacts" / "models" / "main" / f"step_{step}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    digest = write(folder, trained.traced)
    recorded.journal.append(
        events.Model,
        *("main", step, f"artifacts/models/main/step_{step}", digest.sha256, 10_000, str(torch.__version__)),
        *(trained.traced.signature, registered_name),
        None if best is None else BestMetric("accuracy", "max", best),
    )


def find_exports(uri: str, recorded: RecordedRun) -> list[LoggedModel]:
    run = find_run(uri, recorded)
    models = MlflowClient(uri).search_logged_models([run.info.experiment_id])
    return sorted(models, key=lambda model: int(model.params["step"]))


def find_versions(uri: str, name: str) -> dict[str, str]:
    """Return the steps of all versions of a registered model."""
    versions = MlflowClient(uri).search_model_versions(f"name='{name}'")
    return {str(version.version): version.tags["pte.step"] for version in versions}


def find_best(uri: str, name: str) -> str:
    return str(MlflowClient(uri).get_model_version_by_alias(name, "best").version)


def check_loaded(uri: str, name: str, trained: Trained) -> None:
    mlflow.set_tracking_uri(uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Raised when MLflow imports its flavors.
        loaded = mlflow.pytorch.load_model(f"models:/{name}@best")
        served = mlflow.pyfunc.load_model(f"models:/{name}@best")
    assert torch.equal(loaded(INPUTS), trained.outputs())
    assert np.array_equal(served.predict(INPUTS.numpy()), trained.outputs().numpy())
    (tensor,) = served.metadata.signature.inputs.inputs
    assert (tensor.type.name, tensor.shape) == ("float32", (-1, 4))
    assert np.array_equal(served.input_example, INPUTS[:1].numpy())


def test_best_model_is_loaded_from_registry(uri: str, recorded: RecordedRun, trained: list[Trained], name: str) -> None:
    log_model(recorded, trained[0], 1, name, best=0.5)
    recorded.deliver()
    assert find_best(uri, name) == "1"
    log_model(recorded, trained[1], 2, name, best=0.75)
    log_model(recorded, trained[0], 3, name)
    recorded.end()
    assert (find_versions(uri, name), find_best(uri, name)) == ({"1": "1", "2": "2", "3": "3"}, "2")
    check_loaded(uri, name, trained[1])
    run = find_run(uri, recorded)
    models = find_exports(uri, recorded)
    assert [(model.name, model.status, model.source_run_id) for model in models] == [
        ("main", "READY", run.info.run_id)
    ] * 3
    assert {(output.model_id, output.step) for output in run.outputs.model_outputs} == {
        (model.model_id, int(model.params["step"])) for model in models
    }
    assert models[1].params["best"] == "accuracy: 0.75"
    client, run_name = MlflowClient(uri), recorded.manifest.name
    assert "`best`" in client.get_registered_model(name).description
    assert [client.get_model_version(name, version).description for version in ("2", "3")] == [
        f"accuracy 0.75, the highest of the run so far. Iteration 2 of run {run_name}.",
        f"Iteration 3 of run {run_name}.",
    ]
    assert models[2].tags["mlflow.note.content"] == f"Iteration 3 of run {run_name}."


@pytest.mark.slow
def test_best_model_is_loaded_from_object_store(
    mlflow_template: Path, bucket: ObjectStore, trained: list[Trained], name: str, tmp_path: Path
) -> None:
    store = servers.copy_store(mlflow_template, tmp_path)
    with servers.serve(tmp_path, f"sqlite:///{store}", f"s3://{BUCKET}", bucket.environment) as uri:
        recorded = RecordedRun(tmp_path / "run", MLflowSink(uri, tmp_path.name))
        log_model(recorded, trained[0], 1, name, best=0.5)
        recorded.end()
        check_loaded(uri, name, trained[0])
        assert any(key.endswith("artifacts/data/model.pt2") for key in bucket.objects())


@pytest.mark.parametrize(
    "stage",
    [
        "create_logged_model",
        "log_outputs",
        "finalize_logged_model",
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
    ],
)
def test_delivery_with_lost_response_is_completed_without_second_version(
    uri: str,
    recorded: RecordedRun,
    trained: list[Trained],
    name: str,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_model(recorded, trained[0], 1, name, best=0.5)
    original = getattr(MlflowClient, stage)

    def stop(*arguments: object, **keywords: object) -> None:
        original(*arguments, **keywords)
        raise ConnectionError(stage)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, stage, stop)
        with pytest.raises(ConnectionError, match=stage):
            recorded.deliver()
    recorded.crash()
    recorded.deliver(save_cursor=False)
    recorded.end()
    (model,) = find_exports(uri, recorded)
    assert model.status == "READY"
    assert len(find_run(uri, recorded).outputs.model_outputs) == 1
    assert (find_versions(uri, name), find_best(uri, name)) == ({"1": "1"}, "1")


KILLED = """
import sys
from pathlib import Path
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store.manifest import Manifest
from tests.crash.killing import arm
directory = Path(sys.argv[1])
manifest = Manifest.load(directory)
arm(sys.argv[2])
consumer = SinkConsumer(directory, manifest, manifest.sinks[0])
while consumer.deliver_next():
    pass
"""


@pytest.mark.slow
def test_killed_delivery_registers_each_model_once(
    mlflow_server: str, trained: list[Trained], name: str, tmp_path: Path
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_server, tmp_path.name))
    log_model(recorded, trained[0], 1, name, best=0.5)
    log_model(recorded, trained[1], 2, name, best=0.75)
    for call in ("create_logged_model:1", "create_model_version:1", "set_registered_model_alias:2"):
        point = f"mlflow.tracking.client:MlflowClient.{call}:after"
        command = [sys.executable, "-c", KILLED, str(recorded.directory), point]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
        assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    recorded.end()
    assert len(find_exports(mlflow_server, recorded)) == 2
    assert (find_versions(mlflow_server, name), find_best(mlflow_server, name)) == ({"1": "1", "2": "2"}, "2")
    check_loaded(mlflow_server, name, trained[1])


def test_alias_stays_at_better_model_of_other_run(
    mlflow_store: str, trained: list[Trained], name: str, tmp_path: Path
) -> None:
    best = []
    for number, accuracy in enumerate([0.75, 0.5, 0.8]):
        recorded = RecordedRun(tmp_path / str(number), MLflowSink(mlflow_store, tmp_path.name))
        log_model(recorded, trained[0], 1, name, best=accuracy)
        recorded.end()
        best.append(find_best(mlflow_store, name))
    assert best == ["1", "1", "3"]


def test_postponed_export_does_not_move_alias_back(
    mlflow_store: str, trained: list[Trained], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, tmp_path.name))
    log_model(recorded, trained[0], 1, name, best=0.5)
    with monkeypatch.context() as patched:
        patched.setattr(_models, "open_repository", lambda *_: BrokenRepository())
        recorded.deliver()
    log_model(recorded, trained[1], 2, name, best=0.75)
    recorded.end()
    consumer = SinkConsumer(recorded.directory, recorded.manifest, recorded.manifest.sinks[0])
    assert consumer.retry_postponed(60)
    versions = find_versions(mlflow_store, name)
    assert sorted(versions.values()) == ["1", "2"]
    assert versions[find_best(mlflow_store, name)] == "2"


class BrokenRepository:
    def log_artifacts(self, directory: str) -> None:
        raise ConnectionError("the artifact store does not respond")


def test_superseded_exports_are_marked_and_identical_ones_are_kept(
    mlflow_store: str, trained: list[Trained], name: str, tmp_path: Path
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, tmp_path.name))
    position = recorded.log(1, {"a": 1.0})
    log_model(recorded, trained[0], 2, name, best=0.5)
    log_model(recorded, trained[1], 3, name, best=0.75)
    recorded.deliver()
    resume_run(recorded, position, 1)
    log_model(recorded, trained[0], 2, name, best=0.5)
    log_model(recorded, trained[0], 3, name)
    recorded.end()
    steps = [(model.params["step"], model.tags.get("pte.superseded")) for model in find_exports(mlflow_store, recorded)]
    assert sorted(steps, key=str) == [("2", None), ("3", "true"), ("3", None)]
    assert find_versions(mlflow_store, name) == {"1": "2", "2": "3", "3": "3"}
    assert find_best(mlflow_store, name) == "1"


@pytest.mark.parametrize("on_rewind", ["keep", "fork"])
def test_alias_returns_to_effective_best_after_rewind(
    mlflow_store: str, trained: list[Trained], name: str, tmp_path: Path, on_rewind: Literal["keep", "fork"]
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, tmp_path.name, on_rewind=on_rewind))
    log_model(recorded, trained[0], 1, name, best=0.5)
    position = recorded.log(1, {"a": 1.0})
    log_model(recorded, trained[1], 2, name, best=0.75)
    recorded.deliver()
    assert find_best(mlflow_store, name) == "2"
    resume_run(recorded, position, 1)
    recorded.deliver()
    versions = find_versions(mlflow_store, name)
    assert versions[find_best(mlflow_store, name)] == "1"
    log_model(recorded, trained[1], 3, name)
    recorded.end()
    assert versions[find_best(mlflow_store, name)] == "1"


def test_alias_without_other_best_stays_at_superseded_export(
    mlflow_store: str, trained: list[Trained], name: str, tmp_path: Path
) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, tmp_path.name))
    position = recorded.log(1, {"a": 1.0})
    log_model(recorded, trained[0], 2, name, best=0.5)
    recorded.deliver()
    resume_run(recorded, position, 1)
    recorded.deliver()
    assert find_best(mlflow_store, name) == "1"


def test_deleted_files_are_rejected(mlflow_store: str, trained: list[Trained], tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, tmp_path.name))
    log_model(recorded, trained[0], 1)
    shutil.rmtree(recorded.directory / "artifacts")
    recorded.end()
    (reason,) = recorded.rejected_events.values()
    assert reason == "The files of the exported model artifacts/models/main/step_1 were replaced or deleted."


def test_delivery_does_not_import_torch(trained: list[Trained], name: str, mlflow_store: str, tmp_path: Path) -> None:
    recorded = RecordedRun(tmp_path / "run", MLflowSink(mlflow_store, tmp_path.name))
    log_model(recorded, trained[0], 1, name, best=0.5)
    script = KILLED.replace("from tests.crash.killing import arm\n", "").replace("arm(sys.argv[2])\n", "")
    script += "assert 'mlflow' in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, str(recorded.directory)], check=True, timeout=120, env=os.environ)
    assert find_versions(mlflow_store, name) == {"1": "1"}
