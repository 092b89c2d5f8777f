"""Resolution of the MLflow run that a sink writes to."""

from __future__ import annotations

import os
import sys
from typing import Literal, NamedTuple

from pte_backends.mlflow import _tracking_uri

#: Where the ID of an MLflow run to continue comes from.
RunOrigin = Literal["argument", "active", "environment"]


class Target(NamedTuple):
    """Server, experiment, and run to write to.

    Attributes:
        tracking_uri: Tracking URI of the server or store.
        experiment: Name of the experiment.
        experiment_id: ID of the experiment if no name is given.
        is_experiment_given: Whether the experiment is an argument, rather than a variable or a default.
        run_id: ID of the MLflow run to continue.
        run_origin: Origin of ``run_id``: an argument, the active run of the script, which the script ends, or the
            environment.
        run_name: Name of the MLflow run.
        artifact_root: Location of the artifacts of a new experiment.
        store_artifact_root: Directory for the artifacts of a local store, if it is created.
    """

    tracking_uri: str
    experiment: str | None = None
    experiment_id: str | None = None
    is_experiment_given: bool = False
    run_id: str | None = None
    run_origin: RunOrigin | None = None
    run_name: str | None = None
    artifact_root: str | None = None
    store_artifact_root: str | None = None

    @property
    def is_active_run(self) -> bool:
        """Whether the script started the MLflow run, and ends it."""
        return self.run_origin == "active"


def resolve_target(tracking_uri: str) -> Target:
    """Resolve the target from MLflow's environment variables and active run.

    Args:
        tracking_uri: Tracking URI. An active run of another store is ignored.

    Returns:
        The target.
    """
    active, named = _active_run(tracking_uri), os.environ.get("MLFLOW_RUN_ID") or None
    origin: RunOrigin | None = "active" if active else "environment" if named else None
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
    return Target(
        tracking_uri,
        experiment=name,
        experiment_id=None if name else os.environ.get("MLFLOW_EXPERIMENT_ID") or None,
        run_id=active or named,
        run_origin=origin,
        # The variable names the run that MLflow starts, not the run that is continued.
        run_name=None if origin else os.environ.get("MLFLOW_RUN_NAME") or None,
        # MLflow's default for a local store, fixed here: the delivery process may run in another directory.
        store_artifact_root=os.path.abspath("mlruns"),
    )


def _active_run(tracking_uri: str) -> str | None:
    # Without mlflow imported there is no active run. Importing it only to ask would take a second.
    active_run = getattr(sys.modules.get("mlflow"), "active_run", None)
    run = active_run() if active_run else None
    if run is None or _tracking_uri.resolve(None) != tracking_uri:
        return None
    return str(run.info.run_id)
