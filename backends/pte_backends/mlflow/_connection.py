"""An MLflow run that events are written to, by client calls alone: MLflow's process-wide active run stays out of it."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _errors, _journal, _runs, _store_lock, _tracking_uri
from pte_backends.mlflow._artifacts import Files
from pte_backends.mlflow._checkpoints import Checkpoints
from pte_backends.mlflow._client import artifacts_at
from pte_backends.mlflow._entities import Entities, Translation, dataset_input
from pte_backends.mlflow._metrics import Points
from pte_backends.mlflow._resolution import Target
from pte_tracking.sinks import (
    AnyEvent,
    Artifact,
    Checkpoint,
    CheckpointRemoved,
    Dataset,
    Figure,
    Histogram,
    Image,
    RejectedEventError,
    Rewound,
    RunStarted,
    RunView,
    Status,
    Text,
)

_logger = logging.getLogger("pte_tracking")
_REFUSED = "INVALID_PARAMETER_VALUE"
_UNKNOWN = ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")
_COPIED_AT_ONCE = 200


class State(msgspec.Struct):
    """What is saved with the position.

    Attributes:
        run_id: The MLflow run.
        epoch_step: The last step that an epoch was stored for.
        has_others: Whether the run had points when it was found: another machine's, which this record may not know.
        last_time: When the last event happened; the run's end, in the end.
        journal: Up to which byte the journal is stored.
    """

    run_id: str = ""
    has_others: bool = False
    epoch_step: int | None = None
    last_time: float = 0.0
    journal: int = 0


class MLflowConnection:
    """The open run.

    Args:
        target: Server, experiment, and run to write to.
        run: The run.
        state: What an earlier connection returned from :meth:`state`.

    Raises:
        SinkClosedError: The MLflow run or its experiment was deleted.
        PermissionError: The server does not let this user in.
    """

    def __init__(self, target: Target, run: RunView, state: Mapping[str, Any]) -> None:
        self._target = target
        self._run = run
        self._state = msgspec.convert(dict(state), State)
        uri = _tracking_uri.find(target.tracking_uri)
        with artifacts_at(None if uri.startswith("http") else target.artifact_root), _store_lock.made_by_one(uri):
            self._client = MlflowClient(_tracking_uri.with_secrets(uri))
        with _errors.told_plainly(self._client.tracking_uri):
            shown = _runs.take_up(self._client, target, run, self._state.run_id)
        if not self._state.run_id:
            self._state.has_others = bool(shown.data.metrics)
        self._attach(shown)
        self._skipped: set[str] = set()

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Store metrics, params and tags in one request, and then what is a file."""
        with self._noticing_deletion():
            if isinstance(events[0], Rewound):
                self._fork(events[0])
            else:
                self._write(events)
        self._state.last_time = max(self._state.last_time, events[-1].time)

    def state(self) -> dict[str, Any]:
        """The run's id and how far it is."""
        plain: dict[str, Any] = msgspec.to_builtins(self._state)
        return plain

    def close(self, status: Status | None) -> None:
        """Set how the run ended, at the time of its last event. A script's own run is left to the script."""
        # A script that was killed ends nothing.
        if status is None or (self._is_joined and status != "KILLED"):
            return
        end = int(self._state.last_time * 1000) or None
        with self._noticing_deletion():
            self._client.set_terminated(self._state.run_id, status, end)

    @property
    def _is_joined(self) -> bool:
        return self._target.is_joined and self._state.run_id == self._target.run_id

    def _attach(self, shown: Run) -> None:
        self._state.run_id = shown.info.run_id
        self._files = Files(self._run, shown.info.artifact_uri, self._client.tracking_uri)
        self._points = Points(self._client, shown.info.run_id, has_others=self._state.has_others)
        self._checkpoints = Checkpoints(self._client, self._run, shown, self._points)
        self._translation = Translation(self._files.write)
        self._is_translating = False

    @contextlib.contextmanager
    def _noticing_deletion(self) -> Iterator[None]:
        with _errors.told_plainly(self._client.tracking_uri):
            try:
                yield
            except MlflowException as error:
                if error.error_code in (_REFUSED, "RESOURCE_DOES_NOT_EXIST"):
                    _runs.get(self._client, self._state.run_id)
                raise

    def _write(self, events: Sequence[AnyEvent]) -> None:
        self._log_batch(events)
        for event in events:
            self._store(event)

    def _fork(self, rewound: Rewound) -> None:
        """Go on in a new run, with the history that still holds."""
        shown = _runs.get(self._client, self._state.run_id)
        # Failing half-way through is no harm: what comes again is found, and the copies are the same points.
        if shown.data.tags.get(_runs.PART) != str(rewound.seq):
            shown = _runs.fork(self._client, self._run, shown, rewound.seq)
            self._state.has_others = False
            self._attach(shown)
            self._state.epoch_step, self._state.journal = None, 0
        history = self._run.history(rewound.to_seq)
        while batch := list(itertools.islice(history, _COPIED_AT_ONCE)):
            self._copy(batch)
        _runs.supersede(self._client, shown.data.tags[_runs.FORKED_FROM], shown.info.run_id)

    def _copy(self, batch: list[AnyEvent]) -> None:
        while batch:
            try:
                return self._write(batch)
            except RejectedEventError as error:  # it was set aside when it came first
                batch = [event for event in batch if event.seq != error.seq]

    def _log_batch(self, events: Sequence[AnyEvent]) -> None:
        if not self._is_translating:
            held = _runs.get(self._client, self._state.run_id).data.params
            self._translation.start(held, self._state.epoch_step)
        # Until the end of this, what is held at MLflow is not known for certain.
        self._is_translating = False
        self._send([(event.seq, self._translation.translate(event)) for event in events])
        self._state.epoch_step = self._translation.epoch_step
        self._is_translating = True

    def _send(self, parts: list[tuple[int, Entities]]) -> None:
        try:
            self._request(parts)
        except MlflowException as error:
            if error.error_code != _REFUSED:
                raise
            _runs.get(self._client, self._state.run_id)
            if len(parts) == 1:
                raise RejectedEventError(parts[0][0], error.message) from error
            # A request is stored whole or not at all: halves of it tell which event spoils it.
            half = len(parts) // 2
            self._send(parts[:half])
            self._send(parts[half:])

    def _request(self, parts: list[tuple[int, Entities]]) -> None:
        metrics = self._points.new(metric for _, entities in parts for metric in entities.metrics)
        params = [param for _, entities in parts for param in entities.params]
        # Of two values of a tag the later one counts; MLflow's servers differ in which they take.
        tags = {tag.key: tag for _, entities in parts for tag in entities.tags}
        if metrics or params or tags:
            self._client.log_batch(self._state.run_id, metrics, params, list(tags.values()))
            self._points.remember(metrics)

    def _store(self, event: AnyEvent) -> None:
        try:
            self._store_what_is_alone(event)
        except ImportError as error:  # the client of a kind of storage
            raise RejectedEventError(event.seq, str(error)) from error
        except MlflowException as error:
            if error.error_code in _UNKNOWN and isinstance(event, Checkpoint | CheckpointRemoved):
                self._skip("checkpoints", "this server knows no logged models, so that checkpoints are not shown")
                return
            if error.error_code != _REFUSED:
                raise
            _runs.get(self._client, self._state.run_id)
            raise RejectedEventError(event.seq, error.message) from error

    def _store_what_is_alone(self, event: AnyEvent) -> None:
        if isinstance(event, RunStarted):
            if not self._is_joined:
                self._client.update_run(self._state.run_id, status="RUNNING")
            if event.resumed and self._state.journal:
                # What was taken back is known from here on, also to who begins from nothing but MLflow.
                self._upload_journal(event)
        elif isinstance(event, Figure | Image):
            self._files.picture(event)
        elif isinstance(event, Text):
            self._files.text(event)
        elif isinstance(event, Dataset):
            self._client.log_inputs(self._state.run_id, [dataset_input(event)])
        elif isinstance(event, Artifact):
            self._files.artifact(event)
        elif isinstance(event, Checkpoint):
            if self._checkpoints.is_there(event):
                self._upload_journal(event)
                self._checkpoints.add(event)
        elif isinstance(event, CheckpointRemoved):
            self._checkpoints.remove(event)
        elif isinstance(event, Histogram):
            self._skip("histograms", "it shows no histograms")

    def _skip(self, what: str, why: str) -> None:
        if what not in self._skipped:
            self._skipped.add(what)
            _logger.warning("mlflow: %s; they are skipped", why)

    def _upload_journal(self, event: AnyEvent) -> None:
        self._state.journal = _journal.upload(self._run, self._files, self._state.journal, event)
