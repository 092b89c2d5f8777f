"""Continuation of an MLflow run that exists already.

The run is active in the script, named by ``MLFLOW_RUN_ID``, or an argument of the sink. It contains at most one run of
pte_tracking: curves of several runs in one MLflow run could not be told apart.
"""

from __future__ import annotations

import contextlib
import logging

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _experiments, _runs
from pte_backends.mlflow._resolution import Target
from pte_tracking.sinks import RunView, SinkClosedError

_logger = logging.getLogger("pte_tracking")
_CLAIM = "pte.claim."
_ORIGIN_NAMES = {"argument": "run_id", "active": "the active run", "environment": "MLFLOW_RUN_ID"}


def join_run(client: MlflowClient, target: Target, run: RunView) -> Run | None:
    """Find the MLflow run that continues the run in ``target.run_id``, or that is its child.

    Args:
        client: MLflow client.
        target: Target with the ID of an MLflow run.
        run: Run to deliver.

    Returns:
        The MLflow run. None if the run is to be delivered to a new MLflow run.

    Raises:
        SinkClosedError: If the MLflow run was deleted, or if an argument names one that does not exist or contains
            another run.
    """
    origin = _ORIGIN_NAMES[target.run_origin or "argument"]
    try:
        named = _runs.get_run(client, target.run_id or "")
    except SinkClosedError as error:
        if not error.is_lost or target.run_origin == "argument":
            raise SinkClosedError(f"{error} (named by {origin})") from error
        _logger.warning("mlflow: %s (named by %s) The run is delivered to a new MLflow run.", error, origin)
        return None
    if target.is_experiment_given and _experiments.find_or_create(client, target).experiment_id != (
        named.info.experiment_id
    ):
        _logger.warning(
            "mlflow: %s is in another experiment than that of the sink. The run is delivered to a new MLflow run in "
            "experiment %r.",
            origin,
            target.experiment or target.experiment_id,
        )
        return None
    experiment_id = named.info.experiment_id
    tagged_runs = _runs.search_runs(client, experiment_id, run, target) or _runs.search_runs(
        client, experiment_id, run, target
    )
    if tagged_runs:
        return min(tagged_runs, key=_runs.sort_key)
    if _claim(client, named, run):
        client.set_tag(named.info.run_id, _runs.TARGET, named.info.run_id)
        return _runs.get_run(client, named.info.run_id)
    if target.run_origin == "argument":
        raise SinkClosedError(
            f"MLflow run {named.info.run_id} contains another run already (tag {_runs.RUN_ID}). Pass another run_id."
        )
    tags = {_runs.PARENT: named.info.run_id, _runs.TARGET: named.info.run_id}
    child = _runs.create_run(client, experiment_id, run, target.run_name or run.name, tags)
    _logger.warning(
        "mlflow: %s, MLflow run %s, contains another run already. The run is delivered to its child %s.",
        origin,
        named.info.run_id,
        child.info.run_id,
    )
    return child


def _claim(client: MlflowClient, named: Run, run: RunView) -> bool:
    """Reserve an MLflow run. Return False if another run has or claims it.

    Trainings that start at the same moment may find the MLflow run without an owner. Each sets a claim before it looks
    for others, so at most one of them finds none.
    """
    run_id = named.info.run_id
    owner = named.data.tags.get(_runs.RUN_ID)
    if owner:
        return bool(owner == run.id)
    own_claim = f"{_CLAIM}{run.id}"
    client.set_tag(run_id, own_claim, "1")
    tags = _runs.get_run(client, run_id).data.tags
    is_unclaimed = not any(tag.startswith(_CLAIM) and tag != own_claim for tag in tags)
    has_won = tags.get(_runs.RUN_ID, run.id) == run.id and is_unclaimed
    if has_won:
        client.set_tag(run_id, _runs.RUN_ID, run.id)
    with contextlib.suppress(MlflowException):  # A request that was repeated finds no tag.
        client.delete_tag(run_id, own_claim)
    return has_won
