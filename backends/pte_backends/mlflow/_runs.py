"""The run at MLflow: found by our tag, or created; never two of them.

An answer that is cut short looks to MLflow's client like an empty success: an id is then ``""``, and a search
finds nothing. Such an id is a failure here, and what was not found is looked for again before it is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from pte_backends.mlflow._entities import run_name
from pte_backends.mlflow._resolution import Target
from pte_tracking.sinks import RunView, SinkClosedError

RUN_ID = "pte.run_id"
PART = "pte.part"
FORKED_FROM = "pte.forked_from"
SUPERSEDED_BY = "pte.superseded_by"
DUPLICATE_OF = "pte.duplicate_of"
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
_DEFAULT_EXPERIMENT = "0"
_CONTEXT = {
    "mlflow.user": "user",
    "mlflow.source.name": "source",
    "mlflow.source.git.commit": "git_commit",
}


def take_up(client: MlflowClient, target: Target, run: RunView, known: str) -> Run:
    """The MLflow run that shows ``run``; created if there is none.

    Args:
        client: Talks to the store.
        target: Experiment and run to look for.
        run: The run.
        known: The id that it had when it was last connected; ``""`` at first.

    Raises:
        SinkClosedError: The run or its experiment was deleted.
    """
    if known:
        found = get(client, known)
        ours = _search(client, found.info.experiment_id, run)
    elif target.run_id:
        found = get(client, target.run_id)
        ours = _search(client, found.info.experiment_id, run)
        found = min(ours, key=_rank, default=found)
    else:
        experiment = _experiment(client, target)
        ours = _search(client, experiment.experiment_id, run) or _search(client, experiment.experiment_id, run)
        if not ours:
            found = create(client, experiment.experiment_id, run, target.run_name or run.name)
            _show_as_training(client, experiment)
            ours = [found, *_search(client, experiment.experiment_id, run)]
        found = min(ours, key=_rank)
    for other in ours:
        if _part(other) == _part(found) and other.info.run_id not in (found.info.run_id, target.run_id):
            _retire(client, other, found)
    if found.data.tags.get(RUN_ID) != run.id:
        client.set_tag(found.info.run_id, RUN_ID, run.id)
    return found


def get(client: MlflowClient, run_id: str) -> Run:
    """An MLflow run.

    Raises:
        SinkClosedError: It was deleted.
    """
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise SinkClosedError(f"the run {run_id} does not exist at {client.tracking_uri}") from error
        raise
    check_id(found.info.run_id)
    if found.info.lifecycle_stage == "deleted":
        raise SinkClosedError(f"the run {run_id} was deleted at {client.tracking_uri}")
    return found


def create(
    client: MlflowClient, experiment_id: str, run: RunView, name: str, tags: Mapping[str, str] | None = None
) -> Run:
    """Begin an MLflow run that carries our tag, and more tags."""
    made = client.create_run(
        experiment_id,
        start_time=int(run.start_time * 1000),
        run_name=run_name(name),
        tags=origin(run) | {RUN_ID: run.id} | dict(tags or {}),
    )
    check_id(made.info.run_id)
    return made


def origin(run: RunView) -> dict[str, str]:
    """The tags by which MLflow tells where something comes from."""
    known = {tag: run.context[key] for tag, key in _CONTEXT.items() if key in run.context}
    return {"mlflow.source.type": "LOCAL"} | known


def fork(client: MlflowClient, run: RunView, old: Run, part: int) -> Run:
    """The MLflow run that goes on from ``old`` after a rewind; begun if that was not done yet.

    Args:
        client: Talks to the store.
        run: The run.
        old: The MLflow run until now.
        part: The rewind's ``seq``.
    """

    def made() -> list[Run]:
        ours = _search(client, old.info.experiment_id, run)
        if not ours:  # the old one carries our tag
            raise ConnectionError("MLflow's answer was cut short")
        return [one for one in ours if _part(one) == part]

    if not made():
        tags = {PART: str(part), FORKED_FROM: old.info.run_id}
        create(client, old.info.experiment_id, run, old.info.run_name, tags)
    first, *others = sorted(made(), key=_rank)
    for other in others:
        _retire(client, other, first)
    return first


def supersede(client: MlflowClient, old: str, by: str) -> None:
    """Put a run beneath the one that goes on from it."""
    client.set_tag(old, "mlflow.parentRunId", by)
    client.set_tag(old, SUPERSEDED_BY, by)
    if get(client, old).info.status == "RUNNING":
        client.set_terminated(old, "KILLED")


def _search(client: MlflowClient, experiment_id: str, run: RunView) -> list[Run]:
    found: list[Run] = client.search_runs([experiment_id], f"tags.`{RUN_ID}` = '{run.id}'")
    for one in found:
        check_id(one.info.run_id)
    return found


def _rank(run: Run) -> tuple[int, str]:
    # The latest part; and of two that a repeated request has made, the same one for every process.
    return -_part(run), run.info.run_id


def _part(run: Run) -> int:
    return int(run.data.tags.get(PART, 0))


def _retire(client: MlflowClient, other: Run, by: Run) -> None:
    client.set_tag(other.info.run_id, DUPLICATE_OF, by.info.run_id)
    client.set_terminated(other.info.run_id, "KILLED")
    client.delete_run(other.info.run_id)


def _experiment(client: MlflowClient, target: Target) -> Experiment:
    found = _find_experiment(client, target)
    if found is None and target.experiment:
        try:
            client.create_experiment(target.experiment, tags={_KIND: _TRAINING})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
        found = _find_experiment(client, target)
    if found is None:
        raise ConnectionError(f"the experiment {target.experiment!r} was created and is not found")
    check_id(found.experiment_id)
    if found.lifecycle_stage == "deleted":
        raise SinkClosedError(f"the experiment {found.name!r} was deleted at {client.tracking_uri}")
    return found


def _find_experiment(client: MlflowClient, target: Target) -> Experiment | None:
    if target.experiment:
        return client.get_experiment_by_name(target.experiment)
    experiment_id = target.experiment_id or _DEFAULT_EXPERIMENT
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise SinkClosedError(f"the experiment {experiment_id} does not exist at {client.tracking_uri}") from error
        raise


def _show_as_training(client: MlflowClient, experiment: Experiment) -> None:
    """Let MLflow's pages open the experiment as one of training, unless others use it or somebody has chosen."""
    if _KIND in experiment.tags:
        return
    runs: list[Any] = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=2)
    if len(runs) == 1:
        client.set_experiment_tag(experiment.experiment_id, _KIND, _TRAINING)


def check_id(found: str) -> None:
    """What MLflow gives is never empty.

    Raises:
        ConnectionError: It is.
    """
    if not found:
        raise ConnectionError("MLflow's answer was cut short")
