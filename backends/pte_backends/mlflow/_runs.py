"""MLflow runs that store a run.

The MLflow client treats a truncated response as an empty success: an ID is ``""``, and a search returns nothing. An
empty ID is therefore an error.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pte_backends.mlflow._descriptions import DESCRIPTION, describe_run
from pte_backends.mlflow._entities import truncate_run_name
from pte_backends.mlflow._origin import origin_tags
from pte_backends.mlflow._resolution import Target
from pte_tracking.sinks import RunView, SinkClosedError

RUN_ID = "pte.run_id"
PART = "pte.part"
FORKED_FROM = "pte.forked_from"
SUPERSEDED_BY = "pte.superseded_by"
PARENT = "mlflow.parentRunId"  # MLflow's own tag
DUPLICATE_OF = "pte.duplicate_of"
#: ID of the existing MLflow run that the sink was to continue. Distinguishes the runs of two sinks.
TARGET = "pte.target_run_id"
_TRUNCATED_RESPONSE = "The response of MLflow was truncated."


def get_run(client: MlflowClient, run_id: str) -> Run:
    """Return an MLflow run by its ID.

    Args:
        client: MLflow client.
        run_id: ID of the MLflow run.

    Returns:
        The MLflow run.

    Raises:
        SinkClosedError: If the run does not exist or was deleted.
    """
    try:
        mlflow_run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise SinkClosedError(
                f"MLflow run {run_id} does not exist at {client.tracking_uri}.", is_lost=True
            ) from error
        raise
    check_id(mlflow_run.info.run_id)
    if mlflow_run.info.lifecycle_stage == "deleted":
        raise SinkClosedError(
            f"MLflow run {run_id} was deleted at {client.tracking_uri}. Restore it, and run: pte-tracking sync"
        )
    return mlflow_run


def create_run(
    client: MlflowClient, experiment_id: str, run: RunView, name: str, tags: Mapping[str, str] | None = None
) -> Run:
    """Create an MLflow run with the tag of a run.

    Args:
        client: MLflow client.
        experiment_id: ID of the experiment.
        run: Run to deliver.
        name: Name of the MLflow run.
        tags: Additional tags. Defaults to none.

    Returns:
        The MLflow run.
    """
    mlflow_run = client.create_run(
        experiment_id,
        start_time=int(run.start_time * 1000),
        run_name=truncate_run_name(name),
        tags=origin_tags(run) | {RUN_ID: run.id, DESCRIPTION: describe_run(run)} | dict(tags or {}),
    )
    check_id(mlflow_run.info.run_id)
    return mlflow_run


def fork_run(client: MlflowClient, run: RunView, target: Target, old: Run, part: int) -> Run:
    """Find the MLflow run that continues ``old`` after a rewind, or create it.

    Args:
        client: MLflow client.
        run: Run to deliver.
        target: Target of the sink.
        old: Superseded MLflow run.
        part: Sequence number of the rewind, stored in the tag ``pte.part``.

    Returns:
        The new MLflow run.
    """

    def find_forks() -> list[Run]:
        tagged_runs = search_runs(client, old.info.experiment_id, run, target)
        if not tagged_runs:  # The superseded run has the tag, so the result cannot be empty.
            raise ConnectionError(_TRUNCATED_RESPONSE)
        return [mlflow_run for mlflow_run in tagged_runs if get_part(mlflow_run) == part]

    if not find_forks():
        tags = {PART: str(part), FORKED_FROM: old.info.run_id} | ({TARGET: target.run_id} if target.run_id else {})
        tags |= {tag: old.data.tags[tag] for tag in (PARENT, DESCRIPTION) if tag in old.data.tags}
        create_run(client, old.info.experiment_id, run, old.info.run_name, tags)
    first, *others = sorted(find_forks(), key=sort_key)
    for other in others:
        delete_duplicate(client, other, first)
    return first


def supersede(client: MlflowClient, run_id: str, successor_id: str) -> None:
    """Make an MLflow run the child of the run that continues it, and end it.

    Args:
        client: MLflow client.
        run_id: ID of the superseded run.
        successor_id: ID of the run that continues it.
    """
    client.set_tag(run_id, PARENT, successor_id)
    client.set_tag(run_id, SUPERSEDED_BY, successor_id)
    if get_run(client, run_id).info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")


def search_runs(client: MlflowClient, experiment_id: str, run: RunView, target: Target) -> list[Run]:
    """Return the MLflow runs of an experiment that a sink has created or joined for a run.

    Args:
        client: MLflow client.
        experiment_id: ID of the experiment.
        run: Run to deliver.
        target: Target of the sink. Runs of another sink with another target are omitted.

    Returns:
        The MLflow runs.
    """
    mlflow_runs: list[Run] = client.search_runs([experiment_id], f"tags.`{RUN_ID}` = '{run.id}'")
    for mlflow_run in mlflow_runs:
        check_id(mlflow_run.info.run_id)
    return [found for found in mlflow_runs if found.data.tags.get(TARGET) == target.run_id]


def sort_key(run: Run) -> tuple[int, str]:
    """Return a key that sorts the MLflow runs of a run: the latest part first, and duplicates in a fixed order."""
    return -get_part(run), run.info.run_id


def get_part(run: Run) -> int:
    """Return the sequence number of the rewind that an MLflow run starts with, 0 for the first MLflow run."""
    return int(run.data.tags.get(PART, 0))


def delete_duplicate(client: MlflowClient, duplicate: Run, original: Run) -> None:
    """Delete an MLflow run that a repeated request created."""
    client.set_tag(duplicate.info.run_id, DUPLICATE_OF, original.info.run_id)
    client.set_terminated(duplicate.info.run_id, "KILLED")
    client.delete_run(duplicate.info.run_id)


def check_id(identifier: str) -> None:
    """Check that an ID is not empty.

    Args:
        identifier: ID from a response of MLflow.

    Raises:
        ConnectionError: If the ID is empty, because the response was truncated.
    """
    if not identifier:
        raise ConnectionError(_TRUNCATED_RESPONSE)
