"""JSON log: an array of rows per log, valid JSON after every row."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from pte_tracking.sinks import (
    UNLIMITED,
    AnyEvent,
    Limits,
    Metrics,
    RejectedEventError,
    Rewound,
    RunView,
    Sink,
    Status,
    check_file_name,
    open_owned,
)

_CLOSING = b"\n]\n"
_EMPTY = b"[]\n"
_CHUNK = 1 << 20
_encode = msgspec.json.Encoder().encode


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
    limits: ClassVar[Limits] = Limits(separate_logs=True, batch_values=UNLIMITED)

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
        self._logs = {name: _LogFile(run.directory, check_file_name(name, "log")) for name in sizes}
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
        """Return the sizes of the logs and the last event.

        Returns:
            The state as plain JSON.
        """
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
            log.truncate(0)
        for event in self._run.history(self._seq):
            if isinstance(event, Metrics) and event.log is not None and event.log in self._logs:
                self._logs[event.log].append(event)

    def _create_log(self, row: Metrics, log: str) -> _LogFile:
        try:
            name = check_file_name(log, "log")
        except ValueError as error:  # A journal from an unknown source may contain any name.
            raise RejectedEventError(row.seq, str(error)) from error
        file = _LogFile(self._run.directory, name)
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


class _LogFile:
    """JSON log: ``[``, one row per line, separated by commas, and ``]``.

    Attributes:
        size: Number of bytes up to the end of the last row; 0 for an empty log.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._fd = open_owned(directory / name, directory)
        self.size = 0

    def append(self, row: Metrics) -> None:
        values: dict[str, Any] = {**row.values}
        if row.epoch is not None:
            values["epoch"] = row.epoch
        values["iteration"] = row.step
        if row.elapsed_time is not None:
            values["elapsed_time"] = row.elapsed_time
        # The encoder writes non-finite numbers as null.
        data = b"%b%b%b" % (b",\n" if self.size else b"[\n", _encode(values), _CLOSING)
        written = 0
        try:
            written = os.pwrite(self._fd, data, self.size)
        finally:
            if written < len(data):
                self._write_end()
        if written < len(data):
            raise OSError(f"Only {written} of {len(data)} bytes were written.")
        self.size += len(data) - len(_CLOSING)

    def truncate(self, size: int) -> bool:
        """Keep the first ``size`` bytes, and return whether the file was long enough."""
        is_long_enough = os.fstat(self._fd).st_size >= size
        if is_long_enough:
            self.size = size
            self._write_end()
        return is_long_enough

    def drop_rows(self, rows: int) -> None:
        """Remove the last rows."""
        end = start = self.size
        while rows and start:
            start = max(end - _CHUNK, 0)
            chunk = os.pread(self._fd, end - start, start)
            # A row contains no newline, so each row starts after one.
            while rows and (newline := chunk.rfind(b"\n")) >= 0:
                chunk, rows = chunk[:newline], rows - 1
            end = start if rows else start + len(chunk)
        size = max(end - len(b","), 0)
        self.truncate(size if size > len(b"[") else 0)

    def close(self) -> None:
        os.close(self._fd)

    def _write_end(self) -> None:
        # Overwrite existing bytes before truncating. A full disk may have no other space.
        end = _CLOSING if self.size else _EMPTY
        os.pwrite(self._fd, end, self.size)
        os.ftruncate(self._fd, self.size + len(end))
