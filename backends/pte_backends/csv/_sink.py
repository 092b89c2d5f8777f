"""CSV sink and its connection."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pte_backends.csv import _reader
from pte_backends.csv._table import STEP_COLUMN, Table
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
class CsvSink(Sink):
    """Sink that writes ``<out_dir>/log.csv``, with one row per report.

    The columns are ``iteration``, ``epoch``, ``elapsed_time``, and the metrics in the order of their first values. A
    LogReport with another ``filename`` has another file: ``val/log`` becomes ``val/log.csv``. Numbers are written with
    all digits. NaN and infinities are ``nan``, ``inf`` and ``-inf``. A metric without a value in a row is empty.

    The delivery process writes the files, because a metric that appears for the first time rewrites its file.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import pte_tracking as pte
        >>> from pte_backends.csv import CsvSink
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, sinks=[CsvSink()], close_timeout=60) as run:
        ...         run.log_metrics({"loss": 0.5}, 1)
        ...     print(Path(directory, "log.csv").read_text())
        iteration,epoch,elapsed_time,loss
        1,,,0.5
        <BLANKLINE>
    """

    name: ClassVar[str] = "csv"
    files: ClassVar[tuple[str, ...]] = ("log.csv", "{log}.csv")
    sources: ClassVar[tuple[str, ...]] = ("*.csv",)
    limits: ClassVar[Limits] = Limits(
        # The header is one line.
        key_characters=re.compile(r"[^\x00-\x1f\x7f]"),
        batch_values=UNLIMITED,
        separate_logs=True,
        shared_names=("metric",),
        reserved_names=frozenset({STEP_COLUMN}),
    )
    shows: ClassVar[Mapping[EventKind, Display] | None] = {"metrics": "native"}

    @classmethod
    def read_run(cls, source: str, directory: Path, *, step: str | None = None) -> Iterable[AnyEvent]:
        """Read the rows of a table.

        Args:
            source: File, or directory that contains one.
            directory: Not used, because there are no files.
            step: Name of the column with the step. Defaults to ``iteration``, ``step``, ``global_step``, or ``epoch``,
                whichever comes first in this order.

        Returns:
            The rows.

        Raises:
            LookupError: If the source does not exist, or contains no row.
            ValueError: If the file has another format, or a step is not an integer.
            OSError: If the file cannot be read.
        """
        return _reader.read_run(source, step)

    def open(self, run: RunView, state: Mapping[str, Any]) -> CsvConnection:
        """Check the files, and rebuild those that are damaged.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.
        """
        return CsvConnection(run, state)


class CsvConnection:
    """Connection to the CSV files of a run.

    Args:
        run: Run to deliver.
        state: State that an earlier connection returned from :meth:`state`.
    """

    def __init__(self, run: RunView, state: Mapping[str, Any]) -> None:
        self._run = run
        self._seq: int = state.get("seq", 0)
        self._tables = {
            log: Table(run.directory, check_file_name(log, "log"), size, header_crc)
            for log, (size, header_crc) in state.get("tables", {}).items()
        }
        for log, table in self._tables.items():
            if not table.is_intact():
                self._rebuild(log, self._seq)

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Append rows. Rebuild the files after a rewind, and a file whose columns change.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If the name of a log is not allowed in a run directory.
            SinkClosedError: If another file has the name of a new log.
        """
        first, last = events[0], events[-1]
        if isinstance(first, Rewound):
            for log in self._tables:
                self._rebuild(log, first.to_seq)
        else:
            rows: dict[str, list[Metrics]] = {}
            for event in events:
                if isinstance(event, Metrics) and event.log is not None:
                    rows.setdefault(event.log, []).append(event)
            for log, log_rows in rows.items():
                if log not in self._tables:
                    self._tables[log] = self._create_table(log, log_rows[0].seq)
                table = self._tables[log]
                if not table.is_intact() or not table.append(log_rows):
                    self._rebuild(log, last.seq)
        self._seq = last.seq

    def state(self) -> dict[str, Any]:
        """Flush the files to disk, and return their sizes and the last event.

        Returns:
            The state as plain JSON.

        Raises:
            OSError: If the disk fails.
        """
        for table in self._tables.values():
            table.flush()
        return {
            "tables": {log: [table.size, table.header_crc] for log, table in self._tables.items()},
            "seq": self._seq,
        }

    def close(self, status: Status | None) -> None:
        """Do nothing, because no file stays open.

        Args:
            status: Final status of the run. The files do not contain it.
        """

    def _create_table(self, log: str, seq: int) -> Table:
        try:
            table = Table(self._run.directory, check_file_name(log, "log"))
        except ValueError as error:  # A journal from an unknown source may contain any name.
            raise RejectedEventError(seq, str(error)) from error
        table.check_is_free()
        return table

    def _rebuild(self, log: str, upto_seq: int) -> None:
        def read_rows() -> Iterator[Metrics]:
            for event in self._run.history(upto_seq):
                if isinstance(event, Metrics) and event.log == log:
                    yield event

        self._tables[log].rebuild(read_rows)
