"""Conversion of events to calls of the ClearML client library."""

from __future__ import annotations

import html
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pte_backends._provenance import read_provenance_file
from pte_backends.clearml._session import OfflineSession, session_folder
from pte_tracking.sinks import (
    AnyEvent,
    Artifact,
    Checkpoint,
    CheckpointRemoved,
    Dataset,
    Histogram,
    MediaFile,
    Metrics,
    Params,
    Provenance,
    RejectedEventError,
    Rewound,
    RunView,
    Status,
    Table,
    Tags,
    Text,
    list_owned_files,
    owned_path,
    read_table,
)

_logger = logging.getLogger("pte_tracking")


class ClearMLState(msgspec.Struct):
    """Saved state of a connection.

    Attributes:
        folder: Path of the session, relative to the run directory.
        header: Names of the project and of the task in the session, and the run directory, to which its paths refer.
        sizes: Sizes of the files of the session.
        seq: Sequence number of the last event.
        status: Status in the session. None if the run continues.
        has_non_finite: Whether a value was left out, and this was logged.
        epoch_step: Last step for which an epoch was stored. Each step has one epoch, even if several logs report it.
    """

    folder: str = ""
    header: tuple[str, ...] | None = None
    sizes: tuple[int, int] = (0, 0)
    seq: int = 0
    status: Status | None = None
    has_non_finite: bool = False
    epoch_step: int | None = None


def split_key(key: str) -> tuple[str, str]:
    """Return the title of a chart and the name of a series for a key.

    Series with one title share a chart: ``train/loss`` is the series ``loss`` of ``train``. A key without two different
    parts is title and series, so different keys never have the same pair.

    Args:
        key: Key of an event.

    Returns:
        Title and series.
    """
    title, _, series = key.rpartition("/")
    return (title, series) if title and series and title != series else (key, key)


class ClearMLConnection:
    """Open session.

    Args:
        project: Name of the project.
        name: Name of the task.
        run: Run to deliver.
        state: State that an earlier connection returned from :meth:`state`.

    Raises:
        SinkClosedError: If ClearML cannot be switched to offline mode.
    """

    def __init__(self, project: str, name: str, run: RunView, state: Mapping[str, Any]) -> None:
        self._project, self._name, self._run = project, name, run
        self._group_tags = [f"group: {group}"] if (group := run.context.get("group")) else []
        self._state = msgspec.convert(dict(state), ClearMLState)
        self._header = (project, name, run.directory.as_uri())
        metrics, task = OfflineSession.sizes(run)
        saved_metrics, saved_task = self._state.sizes
        if self._state.header == self._header and task == saved_task and metrics >= saved_metrics:
            if metrics > saved_metrics:  # a batch whose position was not saved
                os.truncate(run.directory / session_folder(run.id) / "metrics.jsonl", saved_metrics)
            self._session = OfflineSession(run)
        else:
            status = self._state.status
            self._build(self._state.seq)
            self._set_status(status)

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Report events, or build the session again at a rewind.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If a file of the run is missing.
            OSError: If the client library did not store all reports.
        """
        if isinstance(events[0], Rewound):
            self._session.close(has_ended=False)
            self._build(events[0].to_seq)
        else:
            self._set_status(None)
            try:
                for event in events:
                    self._report(event)
            except RejectedEventError:
                self._session.discard()  # The other events of the batch are delivered again.
                raise
            self._session.flush()
        self._state.seq = max(events[-1].seq, self._state.seq)

    def state(self) -> dict[str, Any]:
        """Return the valid sizes of the files and the progress in them.

        Returns:
            The state as plain JSON.
        """
        self._state.sizes = OfflineSession.sizes(self._run)
        plain: dict[str, Any] = msgspec.to_builtins(self._state)
        return plain

    def close(self, status: Status | None) -> None:
        """Close the session, and write the status and the snapshots of the run if it ended.

        Args:
            status: Final status of the run; None if the run continues.
        """
        if status:
            self._set_status(status)
            self._store_snapshots()
        self._session.close(has_ended=status is not None)

    def _build(self, upto_seq: int) -> None:
        self._session = OfflineSession.create(self._run, self._project, self._name)
        self._state = ClearMLState(session_folder(self._run.id), self._header, seq=upto_seq)
        if self._group_tags:
            self._session.task.set_tags(self._group_tags)
        for event in self._run.history(upto_seq):
            try:
                self._report(event)
            except RejectedEventError:
                continue  # The event was also rejected, and logged, when it was first delivered.
        self._session.flush()

    def _set_status(self, status: Status | None) -> None:
        if status != self._state.status:
            self._session.task.set_tags([*self._group_tags, *([status] if status else [])])
            self._state.status = status

    def _store_snapshots(self) -> None:
        """Store a list of the snapshots that exist, because ClearML 2.1 cannot store models in an offline session."""
        snapshots: dict[str, dict[str, Any]] = {}
        for event in self._run.history(self._state.seq):
            if isinstance(event, Checkpoint):
                snapshots[event.path] = {"step": event.step, "sha256": event.sha256, "bytes": event.size}
            elif isinstance(event, CheckpointRemoved):
                snapshots.pop(event.path, None)
        if snapshots:
            self._session.upload_artifact("snapshots", snapshots)

    def _report(self, event: AnyEvent) -> None:
        if isinstance(event, Metrics):
            self._report_metrics(event)
        elif isinstance(event, Histogram):
            title, series = split_key(event.key)
            bins = [f"{low:.4g} to {high:.4g}" for low, high in zip(event.edges, event.edges[1:], strict=False)]
            self._session.logger.report_histogram(title, series, event.counts, event.step, xlabels=bins)
            self._session.count_report()
        elif isinstance(event, Text):
            self._report_media(event, f"<pre>{html.escape(event.text)}</pre>".encode(), "html")
        elif isinstance(event, MediaFile | Artifact):
            try:
                self._report_files(event)
            except (OSError, ValueError) as error:
                raise RejectedEventError(event.seq, str(error)) from error
        elif isinstance(event, Params):
            self._update_parameters("General", event.values)
        elif isinstance(event, Dataset):
            description = json.dumps({"digest": event.digest, "source": event.source})
            self._update_parameters("Datasets", {f"{event.context}/{event.name}": description})
        elif isinstance(event, Provenance):
            self._describe_origin(event)
        elif isinstance(event, Tags):
            self._session.task.set_user_properties(**event.values)

    def _report_metrics(self, event: Metrics) -> None:
        values = {key: float(value) for key, value in event.values.items()}
        last_step = self._state.epoch_step
        if event.epoch is not None and "epoch" not in values and (last_step is None or event.step > last_step):
            values["epoch"], self._state.epoch_step = float(event.epoch), event.step
        for key, value in values.items():
            if math.isfinite(value):
                title, series = split_key(key)
                self._session.logger.report_scalar(title, series, value, event.step)
                self._session.count_report()
            elif not self._state.has_non_finite:
                self._state.has_non_finite = True
                message = (
                    "clearml: leaving out NaN and infinite values, which ClearML stores as 0. First: %s at step %d"
                )
                _logger.warning(message, key, event.step)

    def _describe_origin(self, event: Provenance) -> None:
        facts = event.values
        root, script = Path(facts.get("git_root", "")), Path(facts.get("source", ""))
        self._session.task.set_script(
            repository=facts.get("git_remote", ""),
            branch=facts.get("git_branch", ""),
            commit=facts.get("git_commit", ""),
            diff=read_provenance_file(event, self._run, "diff.txt"),
            working_dir=".",
            entry_point=script.relative_to(root).as_posix() if script.is_relative_to(root) else str(script),
        )
        self._session.task.set_packages(read_provenance_file(event, self._run, "requirements.txt").splitlines())
        self._update_parameters("Provenance", facts)

    def _update_parameters(self, section: str, values: Mapping[str, Any]) -> None:
        self._session.task.update_parameters({f"{section}/{key}": value for key, value in values.items()})

    def _report_files(self, event: MediaFile | Artifact) -> None:
        path = owned_path(self._run.directory, event.path)
        if path is None:
            raise RejectedEventError(event.seq, f"File {event.path} does not exist in the run directory.")
        if isinstance(event, Table):
            table = read_table(path)
            rows = [
                [str(json.dumps(cell) if isinstance(cell, dict | list) else cell) for cell in row] for row in table.data
            ]
            self._session.logger.report_table(*split_key(event.key), event.step, table_plot=[table.columns, *rows])
            self._session.count_report()
            return
        if isinstance(event, MediaFile):
            self._report_media(event, path.read_bytes(), path.suffix.removeprefix("."))
            return
        for file in list_owned_files(self._run.directory, path)[0]:
            name = "/".join(part for part in (event.artifact_path, file.relative_to(path.parent).as_posix()) if part)
            self._session.upload_artifact(name, file)

    def _report_media(self, event: MediaFile | Text, data: bytes, extension: str) -> None:
        # Names of files contain a counter of the process. With a history of 1 the counter stays 0, and the sequence
        # number in the extension makes the name unique and the same at each delivery.
        self._session.logger.report_media(
            *split_key(event.key),
            iteration=event.step,
            stream=io.BytesIO(data),
            file_extension=f".{event.seq}.{extension}",
            max_history=1,
        )
        self._session.count_report()
