"""The rows of a log, printed as they are made."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from pte_tracking._interface.extension import Extension, Manager
from pte_tracking.extensions._columns import Columns
from pte_tracking.extensions._lines import tolerant_write
from pte_tracking.extensions._notebook import NotebookTable, in_notebook
from pte_tracking.extensions.log_report import LogReport, Row


class PrintReport(Extension):
    """Prints the rows of a :class:`~pte_tracking.extensions.LogReport` as a table.

    It runs after every iteration, or as often as ``extend(..., trigger=)`` says, and prints the rows that were made
    since it ran last: numbers in aligned columns, the header first. A progress bar stays below them. After a resume,
    only new rows are printed. In a notebook the last hundred rows are one table that is replaced in place. It
    reports nothing.

    Args:
        entries: Keys of the columns. If None, all that come: ``epoch`` or ``iteration`` first, as the rows are
            made, ``elapsed_time`` last; a key that comes later begins a new header.
        log_report: The name that the LogReport was registered under, or a LogReport. One that is not registered is
            run by this extension.
        out: Where they are printed; the standard output if None, which in a notebook is the table.

    Raises:
        TypeError: An argument is of the wrong type.

    State in snapshots: rows not printed yet, and the state of a LogReport that it runs itself.
    """

    def __init__(
        self,
        entries: Sequence[str] | None = None,
        log_report: str | LogReport = "LogReport",
        out: TextIO | None = None,
    ) -> None:
        if isinstance(entries, str) or not all(isinstance(key, str) for key in entries or ()):
            raise TypeError(f"entries: expected a list of keys, such as ['epoch', 'train/loss'], got {entries!r}")
        if not isinstance(log_report, str | LogReport):
            raise TypeError(
                f"log_report: expected a LogReport or the name of one, got {log_report!r} "
                f"of type {type(log_report).__name__}"
            )
        self._entries = entries
        self._log_report = log_report
        self._out = out
        self._table: _Table | None = None
        self._rows: deque[Row] = deque()

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
        if self._rows and self._table is not None and self._table.is_ready:
            self._print_rows()

    def finalize(self, manager: Manager) -> None:
        if self._rows and self._table is not None:  # on a rank that came later they are those of rank 0
            self._print_rows()

    def state_dict(self) -> dict[str, Any]:
        # Nothing at all where there is nothing: a training then goes on with it or without.
        state: dict[str, Any] = {"unprinted": list(self._rows)} if self._rows else {}
        if log_report := self._owned_log_report():
            state["log_report"] = log_report.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.clear()
        self._rows.extend(state.get("unprinted", ()))
        if log_report := self._owned_log_report():
            log_report.load_state_dict(state["log_report"])

    def _resolve_log_report(self, manager: Manager) -> LogReport:
        if isinstance(self._log_report, LogReport):
            return self._log_report
        try:
            extension = manager.get_extension(self._log_report)
        except ValueError as error:
            raise ValueError(
                f"PrintReport prints the rows of a LogReport; add extensions.LogReport() or name another: {error}"
            ) from None
        if not isinstance(extension, LogReport):
            raise TypeError(f"log_report: {self._log_report!r} is a {type(extension).__name__}, not a LogReport")
        return extension

    def _owned_log_report(self) -> LogReport | None:
        """A LogReport that nobody else runs."""
        log_report = self._log_report
        return log_report if isinstance(log_report, LogReport) and log_report.name is None else None

    def _print_rows(self) -> None:
        assert self._table is not None
        self._table.show(list(self._rows))
        self._rows.clear()


class _Table(Protocol):
    @property
    def is_ready(self) -> bool:
        """Whether rows may be shown now; else later."""

    def show(self, rows: list[Row]) -> None:
        """Shows further rows."""


class _TextTable:
    """Lines of text, each printed once.

    Args:
        columns: The columns.
        out: Where to; the standard output if None.
    """

    is_ready = True

    def __init__(self, columns: Columns, out: TextIO | None) -> None:
        self._columns = columns
        self._out = out
        self._has_header = False

    def show(self, rows: list[Row]) -> None:
        for row in rows:
            if self._columns.add_keys(row) or not self._has_header:
                self._has_header = True
                self._write(self._columns.format_header())
            self._write(self._columns.format_row(row))

    def _write(self, line: str) -> None:
        out = sys.stdout if self._out is None else self._out
        with tolerant_write(out):
            # Takes bars on the same terminal away and draws them again below the line.
            tqdm.write(line, file=out)
