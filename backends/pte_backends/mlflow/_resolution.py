"""Resolution of the MLflow run that a sink writes to."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from pte_backends.mlflow import _tracking_uri


class Target(NamedTuple):
    """Server, experiment, and run to write to.

    Attributes:
        tracking_uri: Tracking URI of the server or store.
        experiment: Name of the experiment.
        experiment_id: ID of the experiment if no name is given.
        run_id: ID of the MLflow run to continue.
        is_joined: Whether the script started that run, and ends it.
        run_name: Name of a new MLflow run.
        artifact_root: Directory for the artifacts of a local store.
    """

    tracking_uri: str
    experiment: str | None
    experiment_id: str | None
    run_id: str | None
    is_joined: bool
    run_name: str | None
    artifact_root: str | None


def resolve_target(tracking_uri: str) -> Target:
    """Resolve the target from MLflow's environment variables and active run.

    Args:
        tracking_uri: Tracking URI. An active run of another store is ignored.

    Returns:
        The target.
    """
    active = _active_run(tracking_uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
    return Target(
        tracking_uri,
        experiment=name,
        experiment_id=None if name else os.environ.get("MLFLOW_EXPERIMENT_ID") or None,
        run_id=active or os.environ.get("MLFLOW_RUN_ID") or None,
        is_joined=active is not None,
        run_name=os.environ.get("MLFLOW_RUN_NAME") or None,
        # MLflow's default for a local store, fixed here: the delivery process may run in another directory.
        artifact_root=os.path.abspath("mlruns"),
    )


def _active_run(tracking_uri: str) -> str | None:
    # Without mlflow imported there is no active run. Importing it only to ask would take a second.
    active_run = getattr(sys.modules.get("mlflow"), "active_run", None)
    run = active_run() if active_run else None
    if run is None or _tracking_uri.resolve(None) != tracking_uri:
        return None
    return str(run.info.run_id)
