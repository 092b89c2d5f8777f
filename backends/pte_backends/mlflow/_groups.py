"""Parent runs of groups.

MLflow nests runs below the run that their tag ``mlflow.parentRunId`` names. Each group has one parent in an experiment.
"""

from __future__ import annotations

import hashlib

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _errors, _runs
from pte_backends.mlflow._descriptions import DESCRIPTION, describe_group
from pte_backends.mlflow._entities import truncate_run_name
from pte_backends.mlflow._origin import origin_tags
from pte_tracking.sinks import RunView

#: Tag of a parent: the digest of the group, because a filter of MLflow cannot contain both kinds of quotation marks.
GROUP_TAG = "pte.group"


def join_group(client: MlflowClient, mlflow_run: Run, run: RunView) -> None:
    """Make an MLflow run a child of the parent of its group, which is created if it does not exist.

    Several processes may do so at the same time, and MLflow has no unique names. Each process sets the parent of its
    own run before it searches for the last time. A process that finds several parents moves all children to the first
    one, in an order that is the same everywhere. So a process either finds the other parent itself, or the process that
    created this parent later finds its child.

    Args:
        client: MLflow client.
        mlflow_run: MLflow run that stores the run. It keeps a parent that it already has.
        run: Run to deliver.
    """
    group = run.context.get("group")
    if not group or _runs.PARENT in mlflow_run.data.tags:
        return
    experiment_id, digest = mlflow_run.info.experiment_id, hashlib.sha256(group.encode()).hexdigest()
    # An empty search may be a truncated response, so it is repeated.
    if not (parents := _find_parents(client, experiment_id, digest) or _find_parents(client, experiment_id, digest)):
        _create_parent(client, experiment_id, digest, group, run)
        parents = _find_parents(client, experiment_id, digest)
    while parents:
        first = parents[0].info.run_id
        client.set_tag(mlflow_run.info.run_id, _runs.PARENT, first)
        parents = _find_parents(client, experiment_id, digest)
        for duplicate in parents[1:]:
            _replace_parent(client, duplicate, parents[0])
        if parents and parents[0].info.run_id == first:
            return
    raise ConnectionError(f"The parent of the group {group!r} was created but is not found.")


def _create_parent(client: MlflowClient, experiment_id: str, digest: str, group: str, run: RunView) -> None:
    time = int(run.start_time * 1000)
    tags = origin_tags(run) | {GROUP_TAG: digest, DESCRIPTION: describe_group(group)}
    parent = client.create_run(experiment_id, start_time=time, run_name=truncate_run_name(group), tags=tags)
    _runs.check_id(parent.info.run_id)
    # A process that is killed could not end a parent that is RUNNING, and its children have their own status.
    client.set_terminated(parent.info.run_id, "FINISHED", time)


def _find_parents(client: MlflowClient, experiment_id: str, digest: str) -> list[Run]:
    parents: list[Run] = client.search_runs([experiment_id], f"tags.`{GROUP_TAG}` = '{digest}'")
    for parent in parents:
        _runs.check_id(parent.info.run_id)
    return sorted(parents, key=lambda parent: parent.info.run_id)


def _replace_parent(client: MlflowClient, duplicate: Run, original: Run) -> None:
    child_filter = f"tags.`{_runs.PARENT}` = '{duplicate.info.run_id}'"
    for child in client.search_runs([duplicate.info.experiment_id], child_filter):
        client.set_tag(child.info.run_id, _runs.PARENT, original.info.run_id)
    try:
        client.delete_run(duplicate.info.run_id)
    except MlflowException as error:
        if not _errors.is_permanent(error):  # Another process may have deleted the duplicate.
            raise
