"""JSON log: an array of rows per log, valid JSON after every row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pte_backends.json import _reader
from pte_backends.json._log_file import LogFile
from pte_tracking.sinks import (
    UNLIMITED,
    AnyEvent,
    Display,
    EventKind,
    Limits,
    Metrics,
    RejectedEventError,
    Rewound,
    RunView,
    Sink,
    Status,
    check_file_name,
)


@dataclasses.dataclass(frozen=True)
class JsonSink(Sink):
    """Sink that writes ``<out_dir>/log``, a JSON array of rows.

    Each row contains the metrics, ``epoch``, ``iteration`` and ``elapsed_time``. A row is appended by overwriting the
    closing bracket, so the cost of a row does not depend on the length of the log. NaN and infinities are ``null``,
    because strict JSON has no such numbers.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import pte_tracking as pte
        >>> from pte_backends.json import JsonSink
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, sinks=[JsonSink()]) as run:
        ...         run.log_metrics({"loss": 0.5}, 1)
        ...     print(Path(directory, "log").read_text())
        [
        {"loss":0.5,"iteration":1}
        ]
        <BLANKLINE>
    """

    name: ClassVar[str] = "json"
    inline: ClassVar[bool] = True
    sources: ClassVar[tuple[str, ...]] = ("log", "*.json", "*.jsonl")
    limits: ClassVar[Limits] = Limits(separate_logs=True, batch_values=UNLIMITED)
    shows: ClassVar[Mapping[EventKind, Display] | None] = {"metrics": "native"}

    @classmethod
    def read_run(cls, source: str, directory: Path, *, step: str | None = None) -> Iterable[AnyEvent]:
        """Read the rows of a JSON log.

        Args:
            source: File, or directory that contains one.
            directory: Not used, because there are no files.
            step: Key of the step in the rows. Defaults to ``iteration``, ``step``, ``global_step``, or ``epoch``,
                whichever comes first in this order.

        Returns:
            The rows.

        Raises:
            LookupError: If the source does not exist, or contains no row.
            ValueError: If the file has another format, or a step is not an integer.
            OSError: If the file cannot be read.
        """
        return _reader.read_run(source, step)

    def open(self, run: RunView, state: Mapping[str, Any]) -> JsonConnection:
        """Truncate the logs to their saved sizes.

        Rows after the saved position are delivered again.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.
        """
        return JsonConnection(run, state.get("sizes", {}), state.get("seq", 0))


class JsonConnection:
    """Open JSON logs.

    Args:
        run: Run to deliver.
        sizes: Size of each log up to the end of its last row, in bytes, by file name.
        seq: Sequence number of the last written event.
    """

    def __init__(self, run: RunView, sizes: Mapping[str, int], seq: int) -> None:
        self._run = run
        self._seq = seq
        self._logs = {name: LogFile(run.directory, check_file_name(name, "log")) for name in sizes}
        if not all(self._logs[name].truncate(size) for name, size in sizes.items()):
            self._rebuild()

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Append rows, or remove the last rows at a rewind.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If the name of a log is not allowed in a run directory.
        """
        logs = self._logs
        for event in events:
            if type(event) is Metrics and event.log is not None and event.log not in logs:
                logs[event.log] = self._create_log(event, event.log)
        for event in events:
            if type(event) is Metrics:
                if event.log is not None:
                    logs[event.log].append(event)
            elif type(event) is Rewound:
                self._rewind(event)
        self._seq = events[-1].seq

    def state(self) -> dict[str, Any]:
        """Flush the logs to disk, and return their sizes and the last event.

        The rows up to these sizes are not delivered again, so they have to survive a loss of power.

        Returns:
            The state as plain JSON.

        Raises:
            OSError: If the disk fails.
        """
        for log in self._logs.values():
            log.flush()
        return {"sizes": {name: log.size for name, log in self._logs.items()}, "seq": self._seq}

    def close(self, status: Status | None) -> None:
        """Close the files.

        Args:
            status: Final status of the run. The log does not contain it.
        """
        for log in self._logs.values():
            log.close()

    def _rebuild(self) -> None:
        """Write all logs again, if one is too short: it was lost, or a crash interrupted a rewind before its save."""
        for log in self._logs.values():
            log.start_replacement(0)
        for event in self._run.history(self._seq):
            if isinstance(event, Metrics) and event.log is not None and event.log in self._logs:
                self._logs[event.log].append(event)
        for log in self._logs.values():
            log.finish_replacement()

    def _create_log(self, row: Metrics, log: str) -> LogFile:
        try:
            name = check_file_name(log, "log")
        except ValueError as error:  # A journal from an unknown source may contain any name.
            raise RejectedEventError(row.seq, str(error)) from error
        file = LogFile(self._run.directory, name)
        file.truncate(0)  # No state refers to existing rows, so they are delivered again.
        return file

    def _rewind(self, rewound: Rewound) -> None:
        superseded_rows: dict[str, int] = {}
        for event in self._run.superseded(rewound):
            if isinstance(event, Metrics) and event.log is not None:
                superseded_rows[event.log] = superseded_rows.get(event.log, 0) + 1
        for name, rows in superseded_rows.items():
            if name in self._logs:
                self._logs[name].drop_rows(rows)
