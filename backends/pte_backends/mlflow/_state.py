"""Saved state of a connection to an MLflow run."""

from __future__ import annotations

import msgspec


class MLflowState(msgspec.Struct):
    """Saved state of a connection.

    Attributes:
        run_id: ID of the MLflow run.
        experiment_id: ID of the experiment of the MLflow run.
        run_name: Name in the configuration of the sink when the MLflow run was created or renamed.
        has_foreign_metrics: Whether the MLflow run already had data points when it was found. They may be unknown to
            this journal, for example if another machine wrote them.
        epoch_step: Last step for which an epoch was stored.
        last_time: Time of the last event, in seconds since the epoch. It becomes the end time of the MLflow run.
        journal_end: Number of journal bytes that are stored as artifacts.
        newest_figures: Sequence number of the newest stored figure by key.
        newest_best: Sequence number of the newest best export by name in the registry.
        newest_tables: Sequence number of the newest stored table by key.
    """

    run_id: str = ""
    experiment_id: str = ""
    run_name: str = ""
    has_foreign_metrics: bool = False
    epoch_step: int | None = None
    last_time: float = 0.0
    journal_end: int = 0
    newest_figures: dict[str, int] = {}
    newest_best: dict[str, int] = {}
    newest_tables: dict[str, int] = {}
