"""Connection that writes events to an MLflow run.

It uses only client calls and does not touch MLflow's process-wide active run.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from mlflow import MlflowClient
from mlflow.entities import Run, RunData
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _errors, _find_run, _journal, _runs, _store_lock, _tracking_uri
from pte_backends.mlflow._artifacts import ArtifactUploader
from pte_backends.mlflow._checkpoints import Checkpoints
from pte_backends.mlflow._client import artifact_root
from pte_backends.mlflow._entities import Entities, EntityBuilder, build_dataset_input, truncate_run_name
from pte_backends.mlflow._import import without_optional_packages
from pte_backends.mlflow._media import MediaStore
from pte_backends.mlflow._metrics import MetricCache
from pte_backends.mlflow._models import Models
from pte_backends.mlflow._resolution import Target
from pte_backends.mlflow._state import MLflowState
from pte_tracking.sinks import (
    AnyEvent,
    Artifact,
    Checkpoint,
    CheckpointRemoved,
    Dataset,
    MediaFile,
    Metrics,
    Model,
    PostponedEventsError,
    RejectedEventError,
    Rewound,
    RunStarted,
    RunView,
    Status,
    Tags,
    Text,
)

_logger = logging.getLogger("pte_tracking")
_FILE_EVENTS = (Artifact, Checkpoint, CheckpointRemoved, MediaFile, Model, Text)
_UNSUPPORTED = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")
_COPY_BATCH_EVENTS = 200


class MLflowConnection:
    """Open connection to an MLflow run.

    Args:
        target: Server, experiment, and run to write to.
        run: Run to deliver.
        state: State that an earlier connection returned from :meth:`state`.

    Raises:
        SinkClosedError: If the MLflow run or its experiment was deleted, or MLflow refuses an option.
        PermissionError: If the server denies access to this user.
    """

    def __init__(self, target: Target, run: RunView, state: Mapping[str, Any]) -> None:
        self._target = target
        self._run = run
        self._state = msgspec.convert(dict(state), MLflowState)
        uri = _tracking_uri.restore_credentials(_tracking_uri.resolve(target.tracking_uri))
        _tracking_uri.check_credentials(uri)
        self._lock = _store_lock.one_thread_at_a_time(uri)
        with self._lock:
            self._open(uri)
        self._skipped: set[str] = set()

    def _open(self, uri: str) -> None:
        target = self._target
        with (
            artifact_root(None if uri.startswith("http") else target.artifact_root or target.store_artifact_root),
            _store_lock.open_store(uri) as store_uri,
            without_optional_packages(),
            _errors.close_on_invalid_configuration(target.tracking_uri),
        ):
            self._client = MlflowClient(store_uri)
        with (
            _errors.translate_auth_errors(self._client.tracking_uri),
            _errors.close_on_invalid_configuration(target.tracking_uri),
        ):
            mlflow_run = _find_run.find_or_create_run(self._client, target, self._run, self._state.run_id)
            self._apply_name(mlflow_run)
        if not self._state.run_id:
            self._state.has_foreign_metrics = bool(mlflow_run.data.metrics)
        self._attach(mlflow_run)

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Store metrics, parameters and tags in one request, then each file.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If MLflow can never store one of the events.
            PostponedEventsError: If the artifact store is not available.
            SinkClosedError: If the MLflow run or its experiment was deleted.
            PermissionError: If the server denies access to this user.
        """
        self._state.last_time = max(self._state.last_time, events[-1].time)
        with self._lock, self._detect_deletion():
            if isinstance(events[0], Rewound):
                self._fork(events[0])
            else:
                self._write_events(events)

    def state(self) -> dict[str, Any]:
        """Return the ID of the MLflow run and the progress in it.

        Returns:
            The state as plain JSON.
        """
        plain: dict[str, Any] = msgspec.to_builtins(self._state)
        return plain

    def close(self, status: Status | None) -> None:
        """Set the final status of the MLflow run, with the time of the last event as its end.

        A run that the script started is left open for the script to end.

        Args:
            status: Final status of the run; None if the run continues.

        Raises:
            SinkClosedError: If the MLflow run or its experiment was deleted.
            PermissionError: If the server denies access to this user.
        """
        # A killed script cannot end its MLflow run.
        if status is None or (self._is_joined and status != "KILLED"):
            return
        end = int(self._state.last_time * 1000) or None
        with self._lock, self._detect_deletion():
            self._client.set_terminated(self._state.run_id, status, end)

    @property
    def _is_joined(self) -> bool:
        return self._target.is_active_run and self._state.run_id == self._target.run_id

    def _apply_name(self, mlflow_run: Run) -> None:
        """Rename the MLflow run once, if it was not created with the name of the sink."""
        name = truncate_run_name(self._target.run_name or "")
        if name != self._state.run_name and name not in ("", mlflow_run.info.run_name):
            self._client.update_run(mlflow_run.info.run_id, name=name)
        self._state.run_name = name

    def _attach(self, mlflow_run: Run) -> None:
        self._state.run_id, self._state.experiment_id = mlflow_run.info.run_id, mlflow_run.info.experiment_id
        self._uploader = ArtifactUploader(self._run, mlflow_run, self._client.tracking_uri)
        self._media = MediaStore(self._client, self._state, self._uploader)
        self._metric_cache = MetricCache(
            self._client, mlflow_run.info.run_id, has_foreign_metrics=self._state.has_foreign_metrics
        )
        self._checkpoints = Checkpoints(self._client, self._run, mlflow_run, self._metric_cache)
        self._models = Models(self._client, self._run, mlflow_run)
        self._entity_builder = EntityBuilder(self._run)
        self._is_builder_current = False
        #: Data and status of the MLflow run when it was found, which spare the first batch two requests.
        self._found_data: RunData | None = mlflow_run.data
        self._is_running = mlflow_run.info.status == "RUNNING"

    @contextlib.contextmanager
    def _detect_deletion(self) -> Iterator[None]:
        with _errors.translate_auth_errors(self._client.tracking_uri):
            try:
                yield
            except MlflowException as error:
                if _errors.is_permanent(error):
                    _runs.get_run(self._client, self._state.run_id)
                raise

    def _write_events(self, events: Sequence[AnyEvent]) -> None:
        texts = self._log_batch(events)
        postponed: dict[int, str] = {}
        failure: _errors.FailedUploadError | None = None
        for event in events:
            if isinstance(event, Metrics):
                continue
            if failure and isinstance(event, _FILE_EVENTS):
                postponed[event.seq] = str(failure)
                continue
            try:
                self._store_event(event, texts.get(event.seq, {}))
            except _errors.FailedUploadError as error:
                if isinstance(event, Tags):  # A tag that is delivered later would replace a newer one.
                    raise RejectedEventError(event.seq, f"The full text was not stored: {error}") from error
                postponed[event.seq], failure = str(error), error
        if postponed:
            raise PostponedEventsError(postponed) from _errors.find_denial(failure)

    def _fork(self, rewound: Rewound) -> None:
        """Continue in a new MLflow run that contains the effective history."""
        mlflow_run = _runs.get_run(self._client, self._state.run_id)
        # A fork can be interrupted anywhere: the new run is found again, and copied data points are identical.
        if mlflow_run.data.tags.get(_runs.PART) != str(rewound.seq):
            mlflow_run = _runs.fork_run(self._client, self._run, self._target, mlflow_run, rewound.seq)
            self._state.has_foreign_metrics = False
            self._attach(mlflow_run)
            self._state.epoch_step, self._state.journal_end = None, 0
            self._state.newest_figures, self._state.newest_tables, self._state.newest_best = {}, {}, {}
        history = self._run.history(rewound.to_seq)
        postponed: dict[int, str] = {}
        while batch := list(itertools.islice(history, _COPY_BATCH_EVENTS)):
            postponed |= self._copy(batch)
        _runs.supersede(self._client, mlflow_run.data.tags[_runs.FORKED_FROM], mlflow_run.info.run_id)
        if postponed:
            raise PostponedEventsError(postponed)

    def _copy(self, batch: list[AnyEvent]) -> dict[int, str]:
        """Copy events to the new MLflow run. Return the reasons of postponed events by sequence number."""
        while batch:
            try:
                self._write_events(batch)
                break
            except PostponedEventsError as error:
                return error.reasons
            except RejectedEventError as error:  # The event was also rejected, and logged, when it was first delivered.
                batch = [event for event in batch if event.seq != error.seq]
        return {}

    def _log_batch(self, events: Sequence[AnyEvent]) -> dict[int, Mapping[str, str]]:
        """Store metrics, parameters and tags. Return the texts to store as artifacts by sequence number."""
        if not self._is_builder_current:
            stored = self._found_data or _runs.get_run(self._client, self._state.run_id).data
            self._entity_builder.reset(stored, self._state.epoch_step)
        # If the request fails, the stored parameters are unknown and must be read again.
        self._is_builder_current, self._found_data = False, None
        batch = [(event.seq, self._entity_builder.build(event)) for event in events]
        self._log_entities(batch)
        self._state.epoch_step = self._entity_builder.epoch_step
        self._is_builder_current = True
        return {seq: entities.texts for seq, entities in batch if entities.texts}

    def _log_entities(self, batch: list[tuple[int, Entities]]) -> None:
        try:
            self._send_request(batch)
        except MlflowException as error:
            if not _errors.is_permanent(error):
                raise
            _runs.get_run(self._client, self._state.run_id)
            if len(batch) == 1:
                raise RejectedEventError(batch[0][0], str(error)) from error
            # A server stores a request completely or not at all, but a store of files may have stored a part of it.
            if self._client.tracking_uri.startswith("file:"):
                self._metric_cache.read_stored()
            # Splitting the request isolates the rejected event.
            half = len(batch) // 2
            self._log_entities(batch[:half])
            self._log_entities(batch[half:])

    def _send_request(self, batch: list[tuple[int, Entities]]) -> None:
        metrics = self._metric_cache.select_new(metric for _, entities in batch for metric in entities.metrics)
        params = [param for _, entities in batch for param in entities.params]
        # The last value of a tag counts. MLflow servers differ in the value that they keep, so send only one.
        tags = {tag.key: tag for _, entities in batch for tag in entities.tags}
        if metrics or params or tags:
            self._client.log_batch(self._state.run_id, metrics, params, list(tags.values()))
            self._metric_cache.add(metrics)

    def _store_event(self, event: AnyEvent, texts: Mapping[str, str]) -> None:
        try:
            for path, text in texts.items():
                self._uploader.write_text(path, text)
            self._store_separately(event)
        except _errors.RefusedUploadError as error:
            raise RejectedEventError(event.seq, str(error)) from error
        except MlflowException as error:
            if error.error_code in _UNSUPPORTED and isinstance(event, Checkpoint | CheckpointRemoved | Model):
                self._skip_kind(
                    "models" if isinstance(event, Model) else "checkpoints",
                    "this server does not support logged models",
                )
                return
            if not _errors.is_permanent(error):
                raise
            _runs.get_run(self._client, self._state.run_id)
            raise RejectedEventError(event.seq, str(error)) from error

    def _store_separately(self, event: AnyEvent) -> None:
        if isinstance(event, RunStarted):
            if not self._is_joined and not self._is_running:
                self._client.update_run(self._state.run_id, status="RUNNING")
            if event.resumed:
                self._state.newest_best |= self._models.return_aliases(self._state.newest_best, event.seq)
            if event.resumed and self._state.journal_end:
                # The stored journal must contain the rewind, for a resume that starts from MLflow only. If it cannot be
                # stored now, it is stored with the next snapshot. The start must not be repeated after the end.
                with contextlib.suppress(_errors.RefusedUploadError, _errors.FailedUploadError):
                    self._upload_journal(event)
        elif isinstance(event, Dataset):
            self._client.log_inputs(self._state.run_id, [build_dataset_input(event)])
        elif isinstance(event, Checkpoint):
            if self._checkpoints.is_current(event):
                self._uploader.check_location()  # before a model is created that would stay incomplete
                self._upload_journal(event)
                self._checkpoints.add(event)
        elif isinstance(event, CheckpointRemoved):
            self._checkpoints.remove(event)
        elif isinstance(event, Model):
            self._uploader.check_location()
            newest = self._state.newest_best
            is_newest_best = event.best is not None and event.seq >= newest.get(event.registered_name, 0)
            self._models.add(event, is_newest_best=is_newest_best)
            if is_newest_best:
                newest[event.registered_name] = event.seq
        else:
            self._media.store(event)

    def _skip_kind(self, kind: str, reason: str) -> None:
        if kind not in self._skipped:
            self._skipped.add(kind)
            _logger.warning("mlflow: skipping all %s: %s", kind, reason)

    def _upload_journal(self, event: AnyEvent) -> None:
        self._state.journal_end = _journal.upload(self._run, self._uploader, self._state.journal_end, event)
