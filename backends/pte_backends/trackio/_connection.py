"""Connection to the database of a Trackio project.

``trackio.init`` keeps one run per thread, sends its rows from another thread, only warns if the database refuses them,
and stamps them with the current time. The connection therefore calls the storage class that ``trackio.Run`` and
``trackio.import_csv`` also call, which stores a batch in one transaction and skips rows whose ID it contains.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trackio.sqlite_storage import SQLiteStorage
from trackio.utils import TRACKIO_DIR

from pte_backends.trackio import _artifacts, _rows
from pte_tracking.sinks import (
    AnyEvent,
    Artifact,
    Checkpoint,
    RejectedEventError,
    Rewound,
    RunView,
    SinkClosedError,
    Status,
)

_BATCH_EVENTS = 1000


class TrackioConnection:
    """Open run of a Trackio project.

    Args:
        project: Name of the project.
        directory: Directory of the databases.
        run: Run to deliver.
        is_started: Whether an earlier connection has written rows.

    Raises:
        SinkClosedError: If Trackio does not accept the project, uses another directory in this process, or has lost
            the run.
    """

    def __init__(self, project: str, directory: Path, run: RunView, *, is_started: bool) -> None:
        if Path(TRACKIO_DIR).absolute() != directory:
            raise SinkClosedError(
                f"Trackio uses the directory {TRACKIO_DIR} in this process, and the run uses {directory}. "
                f"Run: pte-tracking sync {run.directory}"
            )
        try:
            SQLiteStorage.validate_project_name(project)
        except ValueError as error:
            raise SinkClosedError(str(error)) from error
        self._project, self._run = project, run
        #: Entry of the project that is set while the rows are deleted and written again.
        self._rewrite_mark = f"pte_tracking/rewrite/{run.id}"
        if (
            is_started
            and not self._count_rows()
            and not SQLiteStorage.get_project_metadata(project, self._rewrite_mark)
        ):
            is_lost = not SQLiteStorage.get_project_db_path(project).exists()
            raise SinkClosedError(f"Trackio project {project!r} does not contain the run any more.", is_lost=is_lost)

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Store a batch in one transaction, or rewrite the run at a rewind.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If a file of the run is missing, or Trackio does not accept an artifact.
            OSError: If another process locks the database.
        """
        if isinstance(events[0], Rewound):
            self._rewrite(events[0].to_seq)
        else:
            self._append(events)

    def state(self) -> dict[str, Any]:
        """Return that the run has rows. The database drops repeated rows by their IDs.

        Returns:
            The state as plain JSON.
        """
        return {"is_started": True}

    def close(self, status: Status | None) -> None:
        """Store the status in the configuration of the run, because Trackio has no other place for it.

        Args:
            status: Final status of the run; None if the run continues.
        """
        if status:
            self._store([], _rows.build_status(status))

    def _append(self, events: Iterable[AnyEvent]) -> None:
        rows: list[_rows.Row] = []
        config: dict[str, Any] = {}
        for event in events:
            if isinstance(event, Artifact | Checkpoint):
                _artifacts.store(event, self._project, self._run)
            else:
                rows.extend(_rows.build_rows(event, self._project, self._run))
                config.update(_rows.build_config(event, self._run))
        self._store(rows, config)

    def _store(self, rows: list[_rows.Row], config: Mapping[str, Any]) -> None:
        if config:
            stored = SQLiteStorage.get_run_config(self._project, self._run.name, run_id=self._run.id)
            config = {**(stored or {}), **config}
            # Trackio stores a configuration together with rows only. This one is skipped if it is already stored.
            rows = [_rows.build_first_row(self._run), *rows]
        SQLiteStorage.bulk_log(
            self._project,
            self._run.name,
            [row.values for row in rows],
            [row.step for row in rows],
            [row.timestamp for row in rows],
            config=dict(config),
            log_ids=[row.id for row in rows],
            run_id=self._run.id,
        )

    def _rewrite(self, upto_seq: int) -> None:
        SQLiteStorage.set_project_metadata(self._project, self._rewrite_mark, "started")
        SQLiteStorage.delete_run(self._project, self._run.name, run_id=self._run.id)
        if self._count_rows():  # The method does not report why it has failed.
            raise OSError(f"The rows of run {self._run.name!r} in Trackio project {self._project!r} were not deleted.")
        history = self._run.history(upto_seq)
        while events := list(itertools.islice(history, _BATCH_EVENTS)):
            while events:
                try:
                    self._append(events)
                    break
                except RejectedEventError as error:
                    # The event was also rejected, and logged, when it was first delivered.
                    events = [event for event in events if event.seq != error.seq]
        SQLiteStorage.set_project_metadata(self._project, self._rewrite_mark, "")

    def _count_rows(self) -> int:
        count: int = SQLiteStorage.get_log_count(self._project, self._run.name, run_id=self._run.id)
        return count
