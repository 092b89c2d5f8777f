"""Resume a run from MLflow on a machine without other data of the run."""

import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.metrics import read_metrics
from tests.snapshots import small_training as small

STOP_ITERATION = 13


def train(
    out: Path, store: str, resume_from: str | None, last: int | None = None
) -> tuple[small.TrainingParts, Checkpoint | None]:
    parts = small.TrainingParts()
    manager = pte.ExtensionsManager(
        parts.model,
        small.EPOCHS,
        small.default_extensions(keep_best=("train/loss", "min", 9)),
        optimizers=parts.optimizer,
        out_dir=out,
        sinks=["json", MLflowSink(tracking_uri=store, experiment=out.parent.name)],
        state_objects=parts.state_objects,
        close_timeout=60,
    )
    resumed = manager.resume(resume_from) if resume_from else None
    with manager:
        for batch in manager.batches(parts.loader):
            with manager.run_iteration():
                parts.update(batch)
            if manager.iteration == last:
                break
    return parts, resumed


def modification_times(directory: Path) -> dict[Path, int]:
    """Return the times of the files of a run, without those of its delivery process, which may not have ended yet."""
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*") if "delivery" not in path.parts}


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_environment")
@pytest.mark.parametrize("store_fixture", ["mlflow_store", "real_server"])
@pytest.mark.parametrize("uri_template", ["runs:/{run}", "models:/{model}"])
def test_resume_mlflow_uri_in_empty_directory_reproduces_training(
    uri_template: str, store_fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = request.getfixturevalue(store_fixture)
    uninterrupted, _ = train(tmp_path / "uninterrupted", store, None)
    train(tmp_path / "first", store, None, last=STOP_ITERATION)
    shutil.rmtree(tmp_path / "first")

    client = MlflowClient(store)
    experiments = [client.get_experiment_by_name(tmp_path.name).experiment_id]
    (run,) = (candidate for candidate in client.search_runs(experiments) if "first" in candidate.info.run_name)
    models = client.search_logged_models(experiments, filter_string=f"source_run_id = '{run.info.run_id}'")
    (model,) = (candidate for candidate in models if candidate.name == "snapshot_iter_10")
    uri = uri_template.format(run=run.info.run_id, model=model.model_id)
    resumed_parts, resumed = train(tmp_path / "second", store, uri)

    assert resumed is not None
    assert (resumed.path, resumed.step) == ("snapshot_iter_10", 10)
    assert resumed_parts.weights() == uninterrupted.weights()
    before = modification_times(tmp_path / "second")
    loaded_parts = small.TrainingParts()
    loaded = pte.load(tmp_path / "second", uri, models=loaded_parts.model)
    assert loaded.step == 10 or uri.startswith("runs")
    assert modification_times(tmp_path / "second") == before
    assert small.read_rows(tmp_path / "second") == small.read_rows(tmp_path / "uninterrupted")
    # MLflow has the journal up to the snapshot. The events that follow it are not logged twice.
    for key in ("train/loss", "train/luck", "lr"):
        history = client.get_metric_history(run.info.run_id, key)
        # The partial interval that the first training ended with stays, because MLflow cannot delete points.
        points = sorted((point.step, point.value) for point in history if point.step != STOP_ITERATION)
        logged = list(read_metrics(tmp_path / "uninterrupted"))
        assert points == [(event.step, event.points[key]) for event in logged if key in event.points]
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
