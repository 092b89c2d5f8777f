"""A run goes on from what MLflow stores of it, on a machine that knows nothing else."""

import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking._store.events import Checkpoint
from tests.snapshots import small_training as small

STOPPED_IN = 13


def train(out: Path, store: str, what: str | None, last: int | None = None) -> tuple[small.Parts, Checkpoint | None]:
    parts = small.Parts()
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
    resumed = manager.resume(what) if what else None
    with manager:
        for batch in manager.batches(parts.loader):
            with manager.run_iteration():
                parts.update(batch)
            if manager.iteration == last:
                break
    return parts, resumed


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_environment")
@pytest.mark.parametrize("place", ["mlflow_store", "real_server"])
@pytest.mark.parametrize("form", ["runs:/{run}", "models:/{model}"])
def test_an_empty_machine_goes_on_exactly(
    form: str, place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store = request.getfixturevalue(place)
    whole, _ = train(tmp_path / "whole", store, None)
    train(tmp_path / "first", store, None, last=STOPPED_IN)
    shutil.rmtree(tmp_path / "first")

    client = MlflowClient(store)
    experiments = [client.get_experiment_by_name(tmp_path.name).experiment_id]
    (run,) = (one for one in client.search_runs(experiments) if "first" in one.info.run_name)
    models = client.search_logged_models(experiments, filter_string=f"source_run_id = '{run.info.run_id}'")
    (model,) = (one for one in models if one.name == "snapshot_iter_10")
    uri = form.format(run=run.info.run_id, model=model.model_id)
    again, resumed = train(tmp_path / "second", store, uri)

    assert resumed is not None
    assert (resumed.path, resumed.step) == ("snapshot_iter_10", 10)
    assert again.weights() == whole.weights()
    assert small.rows(tmp_path / "second") == small.rows(tmp_path / "whole")
    # The record at MLflow reaches to the snapshot; what the first machine logged behind it is not logged again.
    for key in ("train/loss", "train/luck", "lr"):
        points = sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, key))
        assert points == [(row["iteration"], row[key]) for row in small.rows(tmp_path / "whole") if key in row]
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
