"""Snapshots as logged models of MLflow.

A model is ``PENDING`` until its files are uploaded completely. Its metrics are the data points of the run at its step.
"""

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
from pte_backends.mlflow._descriptions import DESCRIPTION, describe_checkpoint
from pte_backends.mlflow._errors import RefusedUploadError, translate_upload_errors
from pte_backends.mlflow._limits import LIMITS
from pte_backends.mlflow._metrics import MetricCache
from pte_backends.mlflow._origin import origin_tags
from pte_tracking.sinks import (
    Checkpoint,
    CheckpointRemoved,
    RunView,
    checkpoint_digest,
    list_owned_files,
    map_key,
    owned_path,
)

_logger = logging.getLogger("pte_tracking")

#: Tag with the path of the snapshot, relative to the run directory.
PATH_TAG = "pte.checkpoint"
#: Tag with the SHA-256 of the snapshot.
SHA256_TAG = "pte.sha256"


class Checkpoints:
    """Logged models of a run.

    Args:
        client: MLflow client.
        run: Run to deliver.
        mlflow_run: MLflow run that the models belong to.
        metric_cache: Data points of the MLflow run.
    """

    def __init__(self, client: MlflowClient, run: RunView, mlflow_run: Run, metric_cache: MetricCache) -> None:
        self._client = client
        self._run = run
        self._run_id = mlflow_run.info.run_id
        self._experiment_id = mlflow_run.info.experiment_id
        self._metric_cache = metric_cache

    def is_current(self, event: Checkpoint) -> bool:
        """Whether the file on disk is still the snapshot of an event.

        The snapshot may have been pruned or replaced since the event was written, also by a link to another file.

        Args:
            event: Checkpoint event.
        """
        path = owned_path(self._run.directory, event.path)
        if path is None or list_owned_files(self._run.directory, path)[1]:
            return False
        try:
            digest = checkpoint_digest(path)
        except (FileNotFoundError, ValueError):
            return False
        return (digest.sha256, digest.size) == (event.sha256, event.size)

    def add(self, event: Checkpoint) -> None:
        """Store a snapshot as a logged model.

        A model of the same path that the snapshot replaces is deleted after the upload. An interrupted call is
        completed by the next one. A snapshot that is pruned during the upload leaves no model.

        Args:
            event: Checkpoint event of the snapshot.

        Raises:
            RefusedUploadError: If the artifact store will never accept the files.
        """
        models = self._find_models(event.path) or self._find_models(event.path)
        model = next((model for model in models if model.tags[SHA256_TAG] == event.sha256), None)
        if model is None:
            self._create_model(event)
            models = self._find_models(event.path)
            # A repeated request may have created two models. Use the first one.
            model = next(model for model in models if model.tags[SHA256_TAG] == event.sha256)
        if model.status != "READY":
            try:
                with upload_timeout(event.size):
                    self._upload_files(model, self._run.directory / event.path)
            except RefusedUploadError:
                if self.is_current(event):
                    raise
                self._delete_model(model)
                return
        self._attach_metrics(model, event)
        self._link_to_run(model, event.step)
        if model.status != "READY":
            self._client.finalize_logged_model(model.model_id, "READY")
        for other in models:
            if other.model_id != model.model_id:
                self._delete_model(other)

    def remove(self, event: CheckpointRemoved) -> None:
        """Delete the models of a pruned snapshot and their files.

        Args:
            event: Event that reports the pruned snapshot.
        """
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
            tags=origin_tags(self._run)
            | {
                _runs.RUN_ID: self._run.id,
                PATH_TAG: event.path,
                SHA256_TAG: event.sha256,
                DESCRIPTION: describe_checkpoint(event, self._run),
            },
            params={key: str(value) for key, value in params.items() if value is not None},
            model_type="checkpoint",
        )

    def _upload_files(self, model: LoggedModel, path: Path) -> None:
        _runs.check_id(model.artifact_location)
        with translate_upload_errors(model.artifact_location):
            artifact_repository = open_repository(self._client, model)
            if path.is_dir():
                artifact_repository.log_artifacts(str(path), path.name)
            else:
                artifact_repository.log_artifact(str(path))

    def _attach_metrics(self, model: LoggedModel, event: Checkpoint) -> None:
        """Attach the values of the step to a model.

        MLflow stores a model's metric as a data point of the run too. Only data points that the run already has are
        attached, otherwise the curve would have two points at one step. All other values become tags. So do non-finite
        values, because MLflow stores NaN as 0 in model metrics.
        """
        metrics, tags = [], {}
        for key, value in event.values.items():
            stored_metric = self._metric_cache.find(key, event.step)
            if stored_metric is None or not math.isfinite(stored_metric.value):
                tags[map_key(f"pte.value.{key}", LIMITS)] = str(value)
            else:
                metrics.append(
                    Metric(
                        key,
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
        except Exception as error:  # Exceptions differ between storage clients, and some storages cannot delete files.
            deletion_error = error
        self._client.delete_logged_model(model.model_id)
        if deletion_error:
            _logger.warning(
                "mlflow: model %s was deleted, but its files were not: %s. To free them, run: mlflow gc",
                model.name,
                deletion_error,
            )


def open_repository(client: MlflowClient, model: LoggedModel) -> Any:
    """Return the artifact repository that contains the files of a model.

    Args:
        client: MLflow client.
        model: Logged model.

    Returns:
        An ``ArtifactRepository``, which has no type annotations.

    Raises:
        ConnectionError: If the response of MLflow was truncated and contains no location.
    """
    _runs.check_id(model.artifact_location)
    return get_artifact_repository(model.artifact_location, tracking_uri=client.tracking_uri)
