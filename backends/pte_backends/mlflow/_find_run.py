"""Find or create the MLflow run that stores a run.

An empty search may be a truncated response. It is repeated before anything is created, which prevents a second MLflow
run for the same run.
"""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities import Run

from pte_backends.mlflow import _experiments, _groups, _joining, _runs
from pte_backends.mlflow._resolution import Target
from pte_tracking.sinks import RunView


def find_or_create_run(client: MlflowClient, target: Target, run: RunView, known_run_id: str) -> Run:
    """Find the MLflow run that stores a run, or create it.

    Args:
        client: MLflow client.
        target: Experiment and run to search.
        run: Run to deliver.
        known_run_id: ID of the MLflow run from the last connection; ``""`` for the first connection.

    Returns:
        The MLflow run.

    Raises:
        SinkClosedError: If the MLflow run or its experiment was deleted.
    """
    mlflow_run = _runs.get_run(client, known_run_id) if known_run_id else None
    if mlflow_run is None and target.run_id:
        mlflow_run = _joining.join_run(client, target, run)
    if mlflow_run is None:
        tagged_runs = _find_or_create_in_experiment(client, target, run)
        mlflow_run = min(tagged_runs, key=_runs.sort_key)
    else:
        tagged_runs = _runs.search_runs(client, mlflow_run.info.experiment_id, run, target)
    for other in tagged_runs:
        if _runs.get_part(other) == _runs.get_part(mlflow_run) and other.info.run_id not in (
            mlflow_run.info.run_id,
            target.run_id,
        ):
            _runs.delete_duplicate(client, other, mlflow_run)
    _groups.join_group(client, mlflow_run, run)
    return mlflow_run


def _find_or_create_in_experiment(client: MlflowClient, target: Target, run: RunView) -> list[Run]:
    """Return all MLflow runs that store a run, at least one."""
    experiment = _experiments.find_or_create(client, target)
    tagged_runs = _search_twice(client, experiment.experiment_id, run, target)
    if not tagged_runs and (replacement := _experiments.find_replacement(client, target, experiment)):
        experiment = replacement
        tagged_runs = _search_twice(client, experiment.experiment_id, run, target)
    if not tagged_runs:
        tags = {_runs.TARGET: target.run_id} if target.run_id else {}
        mlflow_run = _runs.create_run(client, experiment.experiment_id, run, target.run_name or run.name, tags)
        _experiments.set_kind(client, experiment)
        tagged_runs = [mlflow_run, *_runs.search_runs(client, experiment.experiment_id, run, target)]
    return tagged_runs


def _search_twice(client: MlflowClient, experiment_id: str, run: RunView, target: Target) -> list[Run]:
    return _runs.search_runs(client, experiment_id, run, target) or _runs.search_runs(
        client, experiment_id, run, target
    )
