"""Find or create the MLflow run that stores a run.

The MLflow client treats a truncated response as an empty success: an ID is ``""``, and a search returns nothing. An
empty ID is therefore an error, and an empty search is repeated before anything is created. This prevents a second
MLflow run for the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from pte_backends.mlflow._entities import truncate_run_name
from pte_backends.mlflow._resolution import Target
from pte_tracking.sinks import RunView, SinkClosedError

RUN_ID = "pte.run_id"
PART = "pte.part"
FORKED_FROM = "pte.forked_from"
SUPERSEDED_BY = "pte.superseded_by"
DUPLICATE_OF = "pte.duplicate_of"
_KIND_TAG, _TRAINING_KIND = "mlflow.experimentKind", "custom_model_development"
_DEFAULT_EXPERIMENT_ID = "0"
_TRUNCATED_RESPONSE = "The response of MLflow was truncated."
_CONTEXT_TAGS = {
    "mlflow.user": "user",
    "mlflow.source.name": "source",
    "mlflow.source.git.commit": "git_commit",
}


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
    if known_run_id:
        mlflow_run = get_run(client, known_run_id)
        tagged_runs = _search_runs(client, mlflow_run.info.experiment_id, run)
    elif target.run_id:
        mlflow_run = get_run(client, target.run_id)
        tagged_runs = _search_runs(client, mlflow_run.info.experiment_id, run)
        mlflow_run = min(tagged_runs, key=_sort_key, default=mlflow_run)
    else:
        experiment = _find_or_create_experiment(client, target)
        tagged_runs = _search_runs(client, experiment.experiment_id, run) or _search_runs(
            client, experiment.experiment_id, run
        )
        if not tagged_runs:
            mlflow_run = create_run(client, experiment.experiment_id, run, target.run_name or run.name)
            _set_experiment_kind(client, experiment)
            tagged_runs = [mlflow_run, *_search_runs(client, experiment.experiment_id, run)]
        mlflow_run = min(tagged_runs, key=_sort_key)
    for other in tagged_runs:
        if _get_part(other) == _get_part(mlflow_run) and other.info.run_id not in (
            mlflow_run.info.run_id,
            target.run_id,
        ):
            _delete_duplicate(client, other, mlflow_run)
    if mlflow_run.data.tags.get(RUN_ID) != run.id:
        client.set_tag(mlflow_run.info.run_id, RUN_ID, run.id)
    return mlflow_run


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
            raise SinkClosedError(f"MLflow run {run_id} does not exist at {client.tracking_uri}.") from error
        raise
    check_id(mlflow_run.info.run_id)
    if mlflow_run.info.lifecycle_stage == "deleted":
        raise SinkClosedError(f"MLflow run {run_id} was deleted at {client.tracking_uri}.")
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
        tags=origin_tags(run) | {RUN_ID: run.id} | dict(tags or {}),
    )
    check_id(mlflow_run.info.run_id)
    return mlflow_run


def origin_tags(run: RunView) -> dict[str, str]:
    """Return the tags in which MLflow displays the origin of a run.

    Args:
        run: Run to deliver.

    Returns:
        The tags for the user, the source file, and the Git commit, as far as known.
    """
    tags = {tag: run.context[key] for tag, key in _CONTEXT_TAGS.items() if key in run.context}
    return {"mlflow.source.type": "LOCAL"} | tags


def fork_run(client: MlflowClient, run: RunView, old: Run, part: int) -> Run:
    """Find the MLflow run that continues ``old`` after a rewind, or create it.

    Args:
        client: MLflow client.
        run: Run to deliver.
        old: Superseded MLflow run.
        part: Sequence number of the rewind, stored in the tag ``pte.part``.

    Returns:
        The new MLflow run.
    """

    def find_forks() -> list[Run]:
        tagged_runs = _search_runs(client, old.info.experiment_id, run)
        if not tagged_runs:  # The superseded run has the tag, so the result cannot be empty.
            raise ConnectionError(_TRUNCATED_RESPONSE)
        return [mlflow_run for mlflow_run in tagged_runs if _get_part(mlflow_run) == part]

    if not find_forks():
        tags = {PART: str(part), FORKED_FROM: old.info.run_id}
        create_run(client, old.info.experiment_id, run, old.info.run_name, tags)
    first, *others = sorted(find_forks(), key=_sort_key)
    for other in others:
        _delete_duplicate(client, other, first)
    return first


def supersede(client: MlflowClient, run_id: str, successor_id: str) -> None:
    """Make an MLflow run the child of the run that continues it, and end it.

    Args:
        client: MLflow client.
        run_id: ID of the superseded run.
        successor_id: ID of the run that continues it.
    """
    client.set_tag(run_id, "mlflow.parentRunId", successor_id)
    client.set_tag(run_id, SUPERSEDED_BY, successor_id)
    if get_run(client, run_id).info.status == "RUNNING":
        client.set_terminated(run_id, "KILLED")


def _search_runs(client: MlflowClient, experiment_id: str, run: RunView) -> list[Run]:
    mlflow_runs: list[Run] = client.search_runs([experiment_id], f"tags.`{RUN_ID}` = '{run.id}'")
    for mlflow_run in mlflow_runs:
        check_id(mlflow_run.info.run_id)
    return mlflow_runs


def _sort_key(run: Run) -> tuple[int, str]:
    # The latest part comes first. Of duplicates from a repeated request, every process chooses the same run.
    return -_get_part(run), run.info.run_id


def _get_part(run: Run) -> int:
    return int(run.data.tags.get(PART, 0))


def _delete_duplicate(client: MlflowClient, duplicate: Run, original: Run) -> None:
    client.set_tag(duplicate.info.run_id, DUPLICATE_OF, original.info.run_id)
    client.set_terminated(duplicate.info.run_id, "KILLED")
    client.delete_run(duplicate.info.run_id)


def _find_or_create_experiment(client: MlflowClient, target: Target) -> Experiment:
    experiment = _find_experiment(client, target)
    if experiment is None and target.experiment:
        try:
            client.create_experiment(target.experiment, tags={_KIND_TAG: _TRAINING_KIND})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # Another process may create it at the same time.
                raise
        experiment = _find_experiment(client, target)
    if experiment is None:
        raise ConnectionError(f"Experiment {target.experiment!r} was created but is not found.")
    check_id(experiment.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        raise SinkClosedError(f"Experiment {experiment.name!r} was deleted at {client.tracking_uri}.")
    return experiment


def _find_experiment(client: MlflowClient, target: Target) -> Experiment | None:
    if target.experiment:
        return client.get_experiment_by_name(target.experiment)
    experiment_id = target.experiment_id or _DEFAULT_EXPERIMENT_ID
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise SinkClosedError(f"Experiment {experiment_id} does not exist at {client.tracking_uri}.") from error
        raise


def _set_experiment_kind(client: MlflowClient, experiment: Experiment) -> None:
    """Make MLflow open the experiment in its model training view.

    An experiment that has other runs, or whose view was chosen already, is left unchanged.
    """
    if _KIND_TAG in experiment.tags:
        return
    runs: list[Any] = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=2)
    if len(runs) == 1:
        client.set_experiment_tag(experiment.experiment_id, _KIND_TAG, _TRAINING_KIND)


def check_id(identifier: str) -> None:
    """Check that an ID is not empty.

    Args:
        identifier: ID from a response of MLflow.

    Raises:
        ConnectionError: If the ID is empty, because the response was truncated.
    """
    if not identifier:
        raise ConnectionError(_TRUNCATED_RESPONSE)
