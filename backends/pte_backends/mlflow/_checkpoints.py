"""Snapshots as MLflow's logged models: PENDING until their files are whole, with the run's points of their step."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pte_backends.mlflow import _runs
from pte_backends.mlflow._client import upload_timeout
from pte_backends.mlflow._metrics import MetricCache
from pte_backends.mlflow._resolution import LIMITS
from pte_tracking.sinks import Checkpoint, CheckpointRemoved, RunView, checkpoint_digest, map_key

_logger = logging.getLogger("pte_tracking")
PATH_TAG = "pte.checkpoint"
SHA256_TAG = "pte.sha256"


class Checkpoints:
    """The logged models of a run.

    Args:
        client: Talks to the store.
        run: The run.
        shown: Its MLflow run.
        points: The points of that.
    """

    def __init__(self, client: MlflowClient, run: RunView, mlflow_run: Run, metric_cache: MetricCache) -> None:
        self._client = client
        self._run = run
        self._run_id = mlflow_run.info.run_id
        self._experiment_id = mlflow_run.info.experiment_id
        self._metric_cache = metric_cache

    def is_current(self, event: Checkpoint) -> bool:
        """Whether what lies there is still that event's snapshot: it may have been pruned or replaced by now."""
        try:
            digest = checkpoint_digest(self._run.directory / event.path)
        except (FileNotFoundError, ValueError):
            return False
        return (digest.sha256, digest.size) == (event.sha256, event.size)

    def add(self, event: Checkpoint) -> None:
        """Store a snapshot; one of the same name that it replaces goes when it is there."""
        models = self._find_models(event.path) or self._find_models(event.path)
        model = next((model for model in models if model.tags[SHA256_TAG] == event.sha256), None)
        if model is None:
            self._create_model(event)
            models = self._find_models(event.path)
            # The first of two, should a repeated request have made them.
            model = next(model for model in models if model.tags[SHA256_TAG] == event.sha256)
        if model.status != "READY":
            with upload_timeout(event.size):
                self._upload_files(model, self._run.directory / event.path)
        self._attach_metrics(model, event)
        self._link_to_run(model, event.step)
        if model.status != "READY":
            self._client.finalize_logged_model(model.model_id, "READY")
        for other in models:
            if other.model_id != model.model_id:
                self._delete_model(other)

    def remove(self, event: CheckpointRemoved) -> None:
        """Take a pruned snapshot away, its bytes too."""
        for model in self._find_models(event.path):
            self._delete_model(model)

    def _find_models(self, path: str) -> list[LoggedModel]:
        quote = '"' if "'" in path else "'"
        models: list[LoggedModel] = self._client.search_logged_models(
            [self._experiment_id],
            f"tags.`{_runs.RUN_ID}` = '{self._run.id}' AND tags.`{PATH_TAG}` = {quote}{path}{quote}",
        )
        for model in models:
            _runs.check_id(model.model_id)
        return sorted(models, key=lambda model: (model.status != "READY", model.model_id))

    def _create_model(self, event: Checkpoint) -> None:
        params = {"step": event.step, "epoch": event.epoch, "size": event.size}
        self._client.create_logged_model(
            self._experiment_id,
            name=re.sub(r"[/:.%\"']", "_", event.path),
            source_run_id=self._run_id,
            tags=_runs.origin_tags(self._run)
            | {_runs.RUN_ID: self._run.id, PATH_TAG: event.path, SHA256_TAG: event.sha256},
            params={key: str(value) for key, value in params.items() if value is not None},
            model_type="checkpoint",
        )

    def _upload_files(self, model: LoggedModel, path: Path) -> None:
        artifact_repository = open_repository(self._client, model)
        if path.is_dir():
            artifact_repository.log_artifacts(str(path), path.name)
        else:
            artifact_repository.log_artifact(str(path))

    def _attach_metrics(self, model: LoggedModel, event: Checkpoint) -> None:
        """Give it the values of its step.

        MLflow stores a model's metric as a point of the run as well: only points that the run has can be given, or
        its curve would have two at one step. The rest are tags, as are numbers that are not finite: MLflow makes 0
        of NaN.
        """
        metrics, tags = [], {}
        for key, value in event.values.items():
            mapped_key = map_key(key, LIMITS)
            stored_metric = self._metric_cache.find(mapped_key, event.step)
            if stored_metric is None or not math.isfinite(stored_metric.value):
                tags[map_key(f"pte.value.{key}", LIMITS)] = str(value)
            else:
                metrics.append(
                    Metric(
                        mapped_key,
                        stored_metric.value,
                        stored_metric.timestamp,
                        stored_metric.step,
                        model_id=model.model_id,
                    )
                )
        self._client.log_batch(self._run_id, metrics)
        if tags:
            self._client.set_logged_model_tags(model.model_id, tags)

    def _link_to_run(self, model: LoggedModel, step: int) -> None:
        outputs = _runs.get_run(self._client, self._run_id).outputs
        linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
        if model.model_id not in linked:
            self._client.log_outputs(self._run_id, [LoggedModelOutput(model.model_id, step)])

    def _delete_model(self, model: LoggedModel) -> None:
        deletion_error = None
        try:
            open_repository(self._client, model).delete_artifacts(Path(model.tags[PATH_TAG]).name)
        except Exception as error:  # each kind of storage has its own, and some cannot delete
            deletion_error = error
        self._client.delete_logged_model(model.model_id)
        if deletion_error:
            _logger.warning(
                "mlflow: %s was deleted, its file not (%s); `mlflow gc` frees it", model.name, deletion_error
            )


def open_repository(client: MlflowClient, model: LoggedModel) -> Any:
    """Where a model's files are: an ``ArtifactRepository``, which has no types."""
    _runs.check_id(model.artifact_location)
    return get_artifact_repository(model.artifact_location, tracking_uri=client.tracking_uri)
