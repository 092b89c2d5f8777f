"""Log of the means of reported values, with one row per interval."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking._interface.other_names import NO_WRITERS, accept_names, refuse_names
from pte_tracking._runs.run import Run
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.events import Number
from pte_tracking._store.similar import describe_known, is_misspelled
from pte_tracking._store.values import to_number, to_numbers, to_progress
from pte_tracking.extensions._columns import PROGRESS_KEYS
from pte_tracking.extensions._interval import IntervalExtension, has_ended_an_epoch
from pte_tracking.extensions._log_arguments import check_filename, check_sinks, read_keys
from pte_tracking.extensions._log_group import LogReportGroup, group_of
from pte_tracking.reporter import DictSummary, Observation

if TYPE_CHECKING:
    import pandas

_logger = logging.getLogger("pte_tracking")

#: Row of a log: metrics by key, together with ``epoch``, ``iteration``, and ``elapsed_time``.
Row: TypeAlias = dict[str, Number]


class LogReport(IntervalExtension):
    """Extension that logs the means of reported values over intervals.

    The extension runs after every iteration and collects the reported values. When its trigger fires, the means since
    the last firing become one row of the run, which is delivered to every selected sink. Each row also contains
    ``epoch`` (if the epoch length is set), ``iteration``, and ``elapsed_time`` in seconds. At the end of the training,
    however it ends, the values since the last row become a row, too.

    A value of an extension whose trigger is rarer than each iteration, such as an
    :class:`~pte_tracking.extensions.Evaluator`, is measured at one step. Sinks other than the JSON log get it as a data
    point at this step, before ``postprocess``. The JSON log gets the mean over the interval.

    Of several LogReports in one manager, each has its own JSON log. They run in the order of their registration. At a
    common step, the other sinks get the value of the LogReport that was registered first.

    In distributed training, the means are over the values of all ranks. Values without a weight have the same weight.
    Each row requires one collective operation. A data point between two rows is the value of rank 0. After an error,
    the last row is that of rank 0.

    Rows are stored in the journal of the run and not in memory, so memory usage and the size of snapshots do not
    grow with the number of rows. :attr:`log` and :meth:`to_dataframe` read the rows.

    The extension reports no values. Snapshots contain the values of the current interval and the state of the inner
    trigger.

    Args:
        keys: Key or keys of the metrics to log. Defaults to all. A key that is never reported causes a warning.
        trigger: When an interval ends. A trigger given by ``extend(..., trigger=...)`` replaces it. Defaults to
            ``(1, "epoch")``.
        postprocess: Function called with each row before it is logged. It can change every entry except ``iteration``.
            Defaults to none.
        filename: Path of the JSON log relative to the run directory. Defaults to the first unused of ``"log"``,
            ``"log_1"``, ``"log_2"``, ... in the order of registration. A resumed LogReport keeps its name.
        sinks: Names of the sinks that receive the rows, such as ``["json", "mlflow"]``. Defaults to all sinks of the
            run.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``filename`` is outside the run directory or reserved for files of the run, if a sink is unknown,
            or if ``trigger`` is invalid.

    Example:
        >>> import json, pathlib
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> log = extensions.LogReport(trigger=(2, "iteration"))
        >>> with pte.ExtensionsManager({}, 1, [log], iters_per_epoch=4, sinks=["json"]) as manager:
        ...     for loss in manager.batches([0.5, 0.25, 0.125, 0.125]):
        ...         with manager.run_iteration():
        ...             pte.report({"train/loss": loss})
        >>> [(row["iteration"], row["train/loss"]) for row in log.log]
        [(2, 0.375), (4, 0.125)]
        >>> json.loads((pathlib.Path(manager.out) / "log").read_text()) == log.log
        True
    """

    @accept_names(log_name="filename")
    @refuse_names(
        append="Rows are always appended, at a constant cost per row.",
        format="The log is a JSON array. Read other formats from LogReport.to_dataframe().",
        writer=NO_WRITERS,
    )
    @refuse_unknown()
    def __init__(
        self,
        keys: Iterable[str] | None = None,
        trigger: TriggerLike = (1, "epoch"),
        postprocess: Callable[[dict[str, Any]], object] | None = None,
        filename: str | None = None,
        sinks: Sequence[str] | None = None,
    ) -> None:
        super().__init__(trigger)
        self._keys = read_keys(keys)
        #: Selected keys that no iteration has reported.
        self._missing = list(self._keys or ())
        self._postprocess = postprocess
        self._filename = "log" if filename is None else check_filename(filename)
        self._has_default_filename = filename is None
        #: Default file name in the restored state.
        self.restored_filename: str | None = None
        self._sinks = None if sinks is None else check_sinks(sinks)
        self._summary = DictSummary()
        self._shared = SharedSummary()
        #: Measured keys whose data points in the current interval are events of their own.
        self._points: set[str] = set()
        self._subscribers: list[Callable[[Row], object]] = []
        self._run: Run | None = None
        self._group: LogReportGroup | None = None
        self._receivers: frozenset[str] = frozenset()
        self._has_failed = False
        self._row_iteration: int | None = None
        self._has_interrupted_row = False

    @property
    def interval_unit(self) -> str:
        """Unit of the interval between rows, ``"epoch"`` or ``"iteration"``."""
        return getattr(self._trigger, "unit", "epoch")

    @property
    def filename(self) -> str:
        """Path of the JSON log relative to the run directory."""
        return self._filename

    @property
    def has_default_filename(self) -> bool:
        """Whether no file name was passed."""
        return self._has_default_filename

    def set_default_filename(self, filename: str) -> None:
        """Set the file name of a LogReport to which none was passed.

        Args:
            filename: Path of the JSON log relative to the run directory.
        """
        self._filename = filename

    @property
    def log(self) -> list[Row]:
        """All effective rows of the log file, read from the journal of the run.

        The rows include those before a resume and exclude those superseded by a rewind.

        Raises:
            RuntimeError: If the extension was not passed to a manager.
        """
        if self._run is None:
            raise RuntimeError("LogReport.log is not available before the extension is passed to a manager.")
        rows = self._run.rows(self._filename)
        return [_make_row(event.values, event.epoch, event.step, event.elapsed_time) for event in rows]

    def to_dataframe(self) -> pandas.DataFrame:
        """Return all effective rows of the log file as a data frame.

        Returns:
            A data frame with one row per row of :attr:`log` and one column per key.

        Raises:
            ImportError: If pandas is not installed.
            RuntimeError: If the extension was not passed to a manager.
        """
        with required_by("to_dataframe()", "pandas", "pandas"):
            import pandas
        return pandas.DataFrame(self.log)

    def subscribe(self, function: Callable[[Row], object]) -> None:
        """Register a function that is called with each new row after the row is logged.

        Args:
            function: Function that takes the row and must not change it. A function that is already registered is not
                added again.
        """
        if function not in self._subscribers:
            self._subscribers.append(function)

    @property
    def has_interrupted_row(self) -> bool:
        """Whether the last row contains an interval that an error or an early end of the loop interrupted."""
        return self._has_interrupted_row

    def selects(self, key: str) -> bool:
        """Return whether the extension logs the values of a key."""
        return self._keys is None or key in self._keys

    def check(self, manager: Manager) -> None:
        self._run = manager.run

    def initialize(self, manager: Manager) -> None:
        self._run, self._has_failed, self._has_interrupted_row = manager.run, False, False
        self._group = group_of(manager.run)
        self._receivers = self._group.join(self._sinks)

    def __call__(self, manager: Manager) -> None:
        observation = manager.observation
        if self._keys is not None:
            observation = {key: observation[key] for key in self._keys if key in observation}
            if self._missing:
                self._missing = [key for key in self._missing if key not in observation]
        is_due = self._is_always_due or manager.updater.iteration == 0 or self._trigger.evaluate(manager)
        if self._missing and is_due and manager.world.rank == 0:
            self._warn_missing(manager, [key for key in self._missing if is_misspelled(key, manager.observation)])
        is_first = is_due and observation and manager.world.size == 1 and self._summary.is_empty
        if is_first and _ONLY_FLOAT.issuperset(map(type, observation.values())):
            self._log_row(manager, dict(observation))  # The mean of a single value is the value.
            return
        if manager.measured_keys and manager.world.rank == 0:
            self._log_points(manager, observation, is_due)
        self._summary.add(observation)
        if is_due:
            summary, self._summary = self._shared.reduce(manager.world, self._summary), DictSummary()
            self._log_row(manager, summary.compute_mean())

    def collect(self, manager: Manager) -> None:
        """Collect the values of an iteration in which another extension failed before this extension ran.

        Args:
            manager: The manager.
        """
        observation = {key: value for key, value in manager.observation.items() if self.selects(key)}
        if manager.measured_keys and manager.world.rank == 0:
            self._log_points(manager, observation, is_due=False)
        self._summary.add(observation)

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        self._has_failed = True

    def finalize(self, manager: Manager) -> None:
        """Log the values of the incomplete interval as the last row, and the keys that were never reported."""
        self._log_last_row(manager)
        if not self._missing or self._row_iteration is None or manager.world.rank:
            return
        if self._has_failed or not has_ended_an_epoch(manager):
            return
        # An earlier session, or another rank, may have reported the key.
        known = {key for row in self.log for key in row}
        self._warn_missing(manager, [key for key in self._missing if key not in known])

    def _warn_missing(self, manager: Manager, keys: list[str]) -> None:
        for key in keys:
            self._missing.remove(key)
            _logger.warning(
                "LogReport: keys: %r was not reported so far. %s", key, describe_known(key, manager.observation)
            )

    def _log_last_row(self, manager: Manager) -> None:
        if self._row_iteration == manager.iteration:
            return
        summary, self._summary = self._summary, DictSummary()
        # Other ranks may be in the middle of an iteration, unless the training has reached its end on all of them.
        is_complete = manager.stop_trigger and not self._has_failed
        if is_complete:
            summary = self._shared.reduce(manager.world, summary)
        if self._group is not None and manager.world.rank == 0 and not summary.is_empty:
            self._has_interrupted_row = not is_complete
            self._log_row(manager, summary.compute_mean())

    def state_dict(self) -> dict[str, Any]:
        return {
            "summary": self._summary.state_dict(),
            "trigger": self._trigger.state_dict(),
            "points": sorted(self._points),
            "filename": self._filename if self._has_default_filename else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._summary.load_state_dict(state["summary"])
        self._trigger.load_state_dict(state["trigger"])
        self._points = set(state["points"])
        self.restored_filename = state.get("filename")

    def _log_points(self, manager: Manager, observation: Observation, is_due: bool) -> None:
        """Log the values that are measured in this iteration at its step, unless the row that is due contains them."""
        assert self._group is not None
        measured = [key for key in observation if key in manager.measured_keys]
        if is_due:
            measured = [key for key in measured if key in self._summary]
        covered = self._group.claim(measured, manager.iteration, self._filename, self._receivers)
        self._points.update(measured)
        points = {key: to_number(key, observation[key]) for key in measured if key not in covered}
        if points:
            progress = manager.updater
            manager.run.log_row(
                points, progress.iteration, progress.epoch_or_none, progress.elapsed_time, None, self._sinks
            )

    def _log_row(self, manager: Manager, means: dict[str, Any]) -> None:
        progress = manager.updater
        epoch, iteration, elapsed_time = progress.epoch_or_none, progress.iteration, progress.elapsed_time
        self._row_iteration = iteration
        if self._postprocess is None and PROGRESS_KEYS.isdisjoint(means):
            has_points = self._points or self._group is None or self._group.is_shared
            measured = self._mark_points(manager, means) if has_points else None
            manager.run.log_row(means, iteration, epoch, elapsed_time, self._filename, self._sinks, measured)
            if self._subscribers:
                self._notify_subscribers(_make_row(means, epoch, iteration, elapsed_time))
            return
        row = _make_row(means, epoch, iteration, elapsed_time)
        if self._postprocess is not None:
            self._postprocess(row)
            row = to_numbers(row)
        values = {key: value for key, value in row.items() if key not in PROGRESS_KEYS}
        changed_epoch, changed_time = (to_progress(key, row.get(key)) for key in ("epoch", "elapsed_time"))
        measured = self._mark_points(manager, values)
        manager.run.log_row(values, iteration, changed_epoch, changed_time, self._filename, self._sinks, measured)
        self._notify_subscribers(row)

    def _mark_points(self, manager: Manager, values: Mapping[str, Number]) -> list[str] | None:
        """Return the keys of a row whose data points are events of their own; None if there are none."""
        points, group = self._points, self._group
        assert group is not None
        if group.is_shared:
            unwritten = [key for key in values if key not in points]
            covered = group.claim(unwritten, manager.iteration, self._filename, self._receivers)
            points.update(manager.measured_keys.intersection(covered))
            if covered:
                group.warn([key for key in unwritten if key not in points], self._filename, self._receivers)
        if not points:
            return None
        measured = [key for key in values if key in points]
        points.clear()
        return measured or None

    def _notify_subscribers(self, row: Row) -> None:
        for subscriber in self._subscribers:
            subscriber(row)


_ONLY_FLOAT = frozenset({float})


def _make_row(values: Mapping[str, Any], epoch: float | None, iteration: int, elapsed_time: float | None) -> Row:
    row: Row = {**values}
    if epoch is not None:
        row["epoch"] = epoch
    row["iteration"] = iteration
    if elapsed_time is not None:
        row["elapsed_time"] = elapsed_time
    return row
