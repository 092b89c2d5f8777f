"""Find or create the experiment of an MLflow run."""

from __future__ import annotations

import logging
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _tracking_uri
from pte_backends.mlflow._artifacts import need_server
from pte_backends.mlflow._resolution import Target
from pte_backends.mlflow._runs import check_id
from pte_tracking.sinks import SinkClosedError

_logger = logging.getLogger("pte_tracking")
_KIND_TAG, _TRAINING_KIND = "mlflow.experimentKind", "custom_model_development"
_DEFAULT_EXPERIMENT_ID = "0"
#: Experiment for runs that ``Default`` cannot store. The name keeps the two next to each other.
_LOCAL_EXPERIMENT = "Default-local"


def find_or_create(client: MlflowClient, target: Target) -> Experiment:
    """Find the experiment of a target, or create it.

    Args:
        client: MLflow client.
        target: Experiment to search.

    Returns:
        The experiment.

    Raises:
        SinkClosedError: If the experiment was deleted, if an ID names none, or if its artifacts are elsewhere.
    """
    experiment = _find_experiment(client, target)
    if experiment is None and target.experiment:
        try:
            client.create_experiment(target.experiment, target.artifact_root, tags={_KIND_TAG: _TRAINING_KIND})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # Another process may create it at the same time.
                raise
        experiment = _find_experiment(client, target)
    if experiment is None:
        raise ConnectionError(f"Experiment {target.experiment!r} was created but is not found.")
    check_id(experiment.experiment_id)
    if experiment.lifecycle_stage == "deleted":
        raise SinkClosedError(
            f"Experiment {experiment.name!r} was deleted at {client.tracking_uri}. "
            "Restore it, and run: pte-tracking sync"
        )
    _check_artifact_root(experiment, target.artifact_root)
    return experiment


def find_replacement(client: MlflowClient, target: Target, default: Experiment) -> Experiment | None:
    """Find or create the experiment for new runs if ``Default`` can store none of their files.

    A server that is started before the first training, such as ``mlflow ui``, creates ``Default`` in the local store
    with a location that only a server can write to. MLflow can change neither this location nor that of a single run.
    Artifacts in a directory of this machine are shown by the same server. A server of another database may run on
    another machine, where it would not find that directory, so ``Default`` is kept.

    Args:
        client: MLflow client.
        target: Target of the sink.
        default: Experiment of the target.

    Returns:
        The experiment. None if the user chose an experiment, or if the files can be stored in it.
    """
    is_chosen = target.experiment or target.experiment_id
    if is_chosen or not need_server(default.artifact_location, client.tracking_uri):
        return None
    if not _tracking_uri.is_local(target.tracking_uri):
        return None
    local_target = target._replace(experiment=_LOCAL_EXPERIMENT)
    if _find_experiment(client, local_target) is None:
        _logger.warning(
            "mlflow: the run is created in the new experiment %r, because a server has created %r in %s, and only a "
            "server can store files there. To choose another experiment, set MLFLOW_EXPERIMENT_NAME.",
            _LOCAL_EXPERIMENT,
            default.name,
            target.tracking_uri,
        )
    return find_or_create(client, local_target)


def _check_artifact_root(experiment: Experiment, root: str | None) -> None:
    if root is None:
        return
    location = _tracking_uri.make_absolute(experiment.artifact_location)
    # The first experiment of a new local store is created with a location below the root.
    if location.rstrip("/") not in (root.rstrip("/"), f"{root.rstrip('/')}/{experiment.experiment_id}"):
        raise SinkClosedError(
            f"artifact_root={root!r} cannot take effect, because experiment {experiment.name!r} exists and stores its "
            f"artifacts in {location!r}. Choose another experiment."
        )


def _find_experiment(client: MlflowClient, target: Target) -> Experiment | None:
    if target.experiment:
        return client.get_experiment_by_name(target.experiment)
    experiment_id = target.experiment_id or _DEFAULT_EXPERIMENT_ID
    try:
        return client.get_experiment(experiment_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise SinkClosedError(
                f"Experiment {experiment_id} does not exist at {client.tracking_uri}. To deliver the run to another "
                "experiment, run: pte-tracking sync RUN_DIR --to mlflow --option experiment=NAME"
            ) from error
        raise


def set_kind(client: MlflowClient, experiment: Experiment) -> None:
    """Make MLflow open the experiment in its model training view.

    An experiment that has other runs, or whose view was chosen already, is left unchanged.

    Args:
        client: MLflow client.
        experiment: Experiment with a new run.
    """
    if _KIND_TAG in experiment.tags:
        return
    runs: list[Any] = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL, max_results=2)
    if len(runs) == 1:
        client.set_experiment_tag(experiment.experiment_id, _KIND_TAG, _TRAINING_KIND)
