"""Printed table of the rows of a log."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Sequence, Set
from types import TracebackType
from typing import Any, Protocol, TextIO

from pte_tracking._interface.extension import Extension, Manager
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.messages import write_above_bars
from pte_tracking._store.similar import describe_known, is_misspelled
from pte_tracking.extensions._columns import PROGRESS_KEYS, Columns
from pte_tracking.extensions._interval import IntervalExtension, has_ended_an_epoch
from pte_tracking.extensions._lines import terminal_size, tolerant_write
from pte_tracking.extensions._notebook import NotebookTable, in_notebook
from pte_tracking.extensions.log_report import LogReport, Row

_logger = logging.getLogger("pte_tracking")
_MAX_NAMED = 3  # omitted columns in a message


class PrintReport(IntervalExtension):
    """Extension that prints the rows of a :class:`~pte_tracking.extensions.LogReport` as a table.

    The extension runs after every iteration, on all ranks, and prints new rows on rank 0. With
    ``extend(..., trigger=...)``, it prints the rows logged since the trigger fired last. The table has a header and
    aligned columns. A progress bar on the same terminal remains below the table. After a resume, only new rows are
    printed. In a notebook, the last 100 rows are shown as one table that is updated in place. A row without a value in
    any column besides ``epoch``, ``iteration``, and ``elapsed_time`` is not printed, unless there is no other column.
    An entry that occurs in no row causes one warning, at the end of the training or, if it resembles a key, after the
    first row.
    If an error or a ``break`` ends the loop within an interval, the row of this interval is logged but not printed.

    The extension reports no values. Snapshots contain the rows that are not printed yet, and the state of a LogReport
    that is run by this extension.

    Args:
        entries: Keys of the columns. Defaults to all keys in the rows, with ``epoch`` or ``iteration`` first and
            ``elapsed_time`` last. A new key starts a new header. The last columns are omitted if they do not fit in a
            terminal, which is logged.
        log_report: LogReport, or the name of a LogReport in the manager. A LogReport that is not registered in the
            manager is run by this extension. Defaults to ``"LogReport"``.
        out: Output stream. Defaults to the standard output, which is replaced by a table in a notebook.

    Raises:
        TypeError: If an argument has the wrong type. Before the first iteration, if the extension named ``log_report``
            is not a LogReport.
        ValueError: Before the first iteration, if the manager has no extension named ``log_report``.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> reports = [extensions.LogReport(), extensions.PrintReport(["epoch", "train/loss"])]
        >>> with pte.ExtensionsManager({}, 2, reports, iters_per_epoch=2, sinks=[]) as manager:
        ...     for loss in manager.batches([0.5, 0.25]):
        ...         with manager.run_iteration():
        ...             pte.report({"train/loss": loss})
        epoch       train/loss
        1           0.375
        2           0.375
    """

    @refuse_unknown()
    def __init__(
        self,
        entries: Sequence[str] | None = None,
        log_report: str | LogReport = "LogReport",
        out: TextIO | None = None,
    ) -> None:
        if isinstance(entries, str | Set) or not all(isinstance(key, str) for key in entries or ()):
            raise TypeError(f"entries: expected a list of keys, such as ['epoch', 'train/loss'], got {entries!r}")
        if not isinstance(log_report, str | LogReport):
            raise TypeError(
                f"log_report: expected a LogReport or the name of a registered LogReport, got {log_report!r} "
                f"of type {type(log_report).__name__}"
            )
        super().__init__(Extension.trigger)
        self._entries = entries
        self._log_report = log_report
        self._out = out
        self._table: _Table | None = None
        self._rows: deque[Row] = deque()
        self._missing: list[str] = list(entries or ())
        self._seen: dict[str, None] = {}
        self._has_failed = False

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        self._has_failed = True
        if log_report := self._owned_log_report():
            log_report.on_error(manager, exc, tb)

    def check(self, manager: Manager) -> None:
        if log_report := self._owned_log_report():
            log_report.check(manager)

    def initialize(self, manager: Manager) -> None:
        if log_report := self._owned_log_report():
            log_report.initialize(manager)
        if manager.world.rank:
            return
        log_report = self._resolve_log_report(manager)
        columns = Columns(self._entries, log_report.interval_unit)
        if self._out is None and in_notebook():
            self._table = NotebookTable(columns)
        else:
            self._table = _TextTable(columns, self._out)
        log_report.subscribe(self._rows.append)

    def __call__(self, manager: Manager) -> None:
        if log_report := self._owned_log_report():
            log_report(manager)
        is_due = self._trigger.evaluate(manager)
        if self._table is None:
            return
        if is_due and self._rows:
            self._print_rows()
        self._table.refresh()

    def finalize(self, manager: Manager) -> None:
        if log_report := self._owned_log_report():
            log_report.finalize(manager)
        if self._table is not None:  # A rank that was added on a resume has the rows of rank 0, and no table.
            if self._rows and self._resolve_log_report(manager).has_interrupted_row:
                self._rows.pop()
            if self._rows:
                self._print_rows()
            self._table.refresh(at_once=True)
        if self._has_failed or not self._missing or not self._seen or manager.world.rank:
            return
        if has_ended_an_epoch(manager):
            # An earlier session may have logged the key.
            known = {key for row in self._resolve_log_report(manager).log for key in row}
            self._warn_missing([key for key in self._missing if key not in known])

    def state_dict(self) -> dict[str, Any]:
        # Without rows, the state is empty, so that a resumed training can add or remove the extension.
        state: dict[str, Any] = {"unprinted": list(self._rows)} if self._rows else {}
        if log_report := self._owned_log_report():
            state["log_report"] = log_report.state_dict()
        if trigger := self._trigger.state_dict():
            state["trigger"] = trigger
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.clear()
        self._rows.extend(state.get("unprinted", ()))
        if log_report := self._owned_log_report():
            log_report.load_state_dict(state["log_report"])
        if "trigger" in state:
            self._trigger.load_state_dict(state["trigger"])

    def _resolve_log_report(self, manager: Manager) -> LogReport:
        if isinstance(self._log_report, LogReport):
            return self._log_report
        try:
            extension = manager.get_extension(self._log_report)
        except ValueError as error:
            reason = str(error).removeprefix("name: ")
            raise ValueError(
                f"PrintReport: {reason} Add extensions.LogReport() to the extensions, or pass log_report=, the name of "
                "another LogReport."
            ) from None
        if not isinstance(extension, LogReport):
            raise TypeError(
                f"log_report: expected a LogReport as {self._log_report!r}, got a {type(extension).__name__}"
            )
        return extension

    def _owned_log_report(self) -> LogReport | None:
        """Return the LogReport if it is not registered in the manager, so this extension has to run it."""
        log_report = self._log_report
        return log_report if isinstance(log_report, LogReport) and log_report.name is None else None

    def _print_rows(self) -> None:
        assert self._table is not None
        rows = list(self._rows)
        self._table.show(rows)
        self._rows.clear()
        if self._missing:
            self._seen.update(dict.fromkeys(key for row in rows for key in row))
            self._missing = [key for key in self._missing if key not in self._seen]
            self._warn_missing([key for key in self._missing if is_misspelled(key, self._seen)])

    def _warn_missing(self, names: list[str]) -> None:
        for name in names:
            self._missing.remove(name)
            known = [key for key in self._seen if key not in PROGRESS_KEYS]
            _logger.warning("PrintReport: no row has a value of the entry %r. %s", name, describe_known(name, known))


class _Table(Protocol):
    """Display of log rows."""

    def show(self, rows: list[Row]) -> None:
        """Append rows to the table."""

    def refresh(self, at_once: bool = False) -> None:
        """Display appended rows, at once or when the display allows the next update."""


class _TextTable:
    """Table printed as lines of text.

    Args:
        columns: Columns of the table.
        out: Output stream. None for the current standard output.
    """

    def __init__(self, columns: Columns, out: TextIO | None) -> None:
        self._columns = columns
        self._out = out
        self._has_header = False

    def show(self, rows: list[Row]) -> None:
        columns = self._columns
        for row in rows:
            if columns.add_keys(row, self._width()) or not self._has_header:
                self._has_header = True
                if columns.omitted:
                    self._report_omitted(columns.omitted)
                self._write(columns.format_header())
            if columns.has_value(row):
                self._write(columns.format_row(row))

    def refresh(self, at_once: bool = False) -> None:
        pass  # show() has printed the rows.

    def _report_omitted(self, keys: list[str]) -> None:
        names = ", ".join(keys[:_MAX_NAMED]) + (", ..." if len(keys) > _MAX_NAMED else ".")
        _logger.info(
            "PrintReport: the terminal has no room for %d of the columns: %s To choose the columns, pass entries, "
            "such as %r.",
            *(len(keys), names, [self._columns.keys[0], keys[0]]),
        )

    def _width(self) -> int | None:
        """Return the width of the terminal. None if the output is not a terminal, or its width is unknown."""
        size = terminal_size(self._stream())
        return None if size is None else size.columns or None

    def _stream(self) -> TextIO:
        return sys.stdout if self._out is None else self._out

    def _write(self, line: str) -> None:
        out = self._stream()
        with tolerant_write(out):
            write_above_bars(f"{line}\n", out)
