"""What a user of MLflow has said already: in the environment, and by a run that the script has started."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from pte_mlflow import address


class Said(NamedTuple):
    """What was said.

    Attributes:
        experiment: An experiment's name.
        experiment_id: An experiment's id, where no name was said.
        run_id: The run to go on with.
        is_joined: That run is the script's own, which ends it.
        run_name: The name of a new run.
    """

    experiment: str | None
    experiment_id: str | None
    run_id: str | None
    is_joined: bool
    run_name: str | None


def said(tracking_uri: str) -> Said:
    """What was said, as far as it concerns the store at ``tracking_uri``."""
    active = _active_run(tracking_uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
    return Said(
        experiment=name,
        experiment_id=None if name else os.environ.get("MLFLOW_EXPERIMENT_ID") or None,
        run_id=active or os.environ.get("MLFLOW_RUN_ID") or None,
        is_joined=active is not None,
        run_name=os.environ.get("MLFLOW_RUN_NAME") or None,
    )


def _active_run(tracking_uri: str) -> str | None:
    # Without mlflow imported there is none; importing it only to learn that would cost a second.
    ask = getattr(sys.modules.get("mlflow"), "active_run", None)
    run = ask() if ask else None
    if run is None or address.find(None) != tracking_uri:
        return None
    return str(run.info.run_id)
