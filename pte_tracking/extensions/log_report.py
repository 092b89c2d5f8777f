"""Log of the means of reported values, with one row per interval."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._interface.other_names import NO_WRITERS, accept_names, refuse_names
from pte_tracking._runs.run import Run
from pte_tracking._store import layout
from pte_tracking._store.events import Number
from pte_tracking._store.values import to_numbers
from pte_tracking.reporter import DictSummary
from pte_tracking.sinks import get_sink
from pte_tracking.triggers import get_trigger

if TYPE_CHECKING:
    import pandas

#: Row of a log: metrics by key, together with ``epoch``, ``iteration``, and ``elapsed_time``.
Row: TypeAlias = dict[str, Number]


class LogReport(Extension):
    """Extension that logs the means of reported values over intervals.

    The extension runs after every iteration, or according to ``extend(..., trigger=...)``, and collects the reported
    values. When its inner trigger fires, the means since the last firing become one row of the run, which is delivered
    to every selected sink. Each row also contains ``epoch`` (if the epoch length is set), ``iteration``, and
    ``elapsed_time`` in seconds. Values of an interval that is incomplete at the end of the training are not logged.

    In distributed training, the means are over the values of all ranks. Every value has the same weight. Each row
    requires one collective operation.

    Rows are stored in the journal of the run and not in memory, so that memory usage and the size of snapshots do not
    grow with the number of rows. :attr:`log` and :meth:`to_dataframe` read the rows.

    The extension reports no values. Snapshots contain the values of the current interval and the state of the inner
    trigger.

    Args:
        keys: Key or keys of the metrics to log. Defaults to all reported values.
        trigger: Inner trigger, which ends an interval. Defaults to ``(1, "epoch")``.
        postprocess: Function called with each row before it is logged. It can change every entry except ``iteration``.
            Defaults to none.
        filename: Path of the JSON log relative to the run directory. Several reports in one manager require different
            names. Defaults to ``"log"``.
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
    def __init__(
        self,
        keys: Iterable[str] | None = None,
        trigger: TriggerLike = (1, "epoch"),
        postprocess: Callable[[dict[str, Any]], object] | None = None,
        filename: str = "log",
        sinks: Sequence[str] | None = None,
    ) -> None:
        self._keys = [keys] if isinstance(keys, str) else None if keys is None else list(keys)
        self._trigger = get_trigger(trigger)
        self._postprocess = postprocess
        self._filename = _check_filename(filename)
        self._sinks = None if sinks is None else _check_sinks(sinks)
        self._summary = DictSummary()
        self._shared = SharedSummary()
        self._subscribers: list[Callable[[Row], object]] = []
        self._run: Run | None = None

    @property
    def interval_unit(self) -> str:
        """Unit of the interval between rows, ``"epoch"`` or ``"iteration"``."""
        return getattr(self._trigger, "unit", "epoch")

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
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_dataframe() requires pandas, which is not installed. Run: pip install pandas"
            ) from error
        return pandas.DataFrame(self.log)

    def subscribe(self, function: Callable[[Row], object]) -> None:
        """Register a function that is called with each new row after the row is logged.

        Args:
            function: Function that takes the row and must not change it. A function that is already registered is not
                added again.
        """
        if function not in self._subscribers:
            self._subscribers.append(function)

    def check(self, manager: Manager) -> None:
        self._run = manager.run

    def __call__(self, manager: Manager) -> None:
        observation = manager.observation
        if self._keys is not None:
            observation = {key: observation[key] for key in self._keys if key in observation}
        is_due = manager.is_before_training or self._trigger.evaluate(manager)
        is_single_process = manager.world.is_single_process
        if is_due and is_single_process and self._summary.is_empty and set(map(type, observation.values())) == {float}:
            self._log_row(manager, dict(observation))  # The mean of a single value is the value.
            return
        self._summary.add(observation)
        if is_due:
            summary, self._summary = self._shared.reduce(manager.world, self._summary), DictSummary()
            self._log_row(manager, summary.compute_mean())

    def state_dict(self) -> dict[str, Any]:
        return {"summary": self._summary.state_dict(), "trigger": self._trigger.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._summary.load_state_dict(state["summary"])
        self._trigger.load_state_dict(state["trigger"])

    def _log_row(self, manager: Manager, means: dict[str, Any]) -> None:
        progress = manager.updater
        epoch, iteration, elapsed_time = progress.epoch_or_none, progress.iteration, progress.elapsed_time
        if self._postprocess is None and means.keys().isdisjoint(_PROGRESS_KEYS):
            manager.run.log_row(means, iteration, epoch, elapsed_time, self._filename, self._sinks)
            if self._subscribers:
                self._notify_subscribers(_make_row(means, epoch, iteration, elapsed_time))
            return
        row = _make_row(means, epoch, iteration, elapsed_time)
        if self._postprocess is not None:
            self._postprocess(row)
            row = to_numbers(row)
        manager.run.log_metrics(
            {key: value for key, value in row.items() if key not in _PROGRESS_KEYS},
            iteration,
            epoch=row.get("epoch"),
            elapsed_time=row.get("elapsed_time"),
            log=self._filename,
            sinks=self._sinks,
        )
        self._notify_subscribers(row)

    def _notify_subscribers(self, row: Row) -> None:
        for subscriber in self._subscribers:
            subscriber(row)


_PROGRESS_KEYS = ("epoch", "iteration", "elapsed_time")


def _make_row(values: Mapping[str, Any], epoch: float | None, iteration: int, elapsed_time: float | None) -> Row:
    row: Row = {**values}
    if epoch is not None:
        row["epoch"] = epoch
    row["iteration"] = iteration
    if elapsed_time is not None:
        row["elapsed_time"] = elapsed_time
    return row


_RESERVED_NAMES = {
    *(layout.MANIFEST, layout.JOURNAL, layout.CHECKPOINTS, layout.WRITER_LOCK, layout.PREVIOUS),
    *(layout.FIGURES, layout.IMAGES, layout.ARTIFACTS, layout.DELIVERY),
}


def _check_filename(filename: str) -> str:
    if filename is None:
        raise TypeError(
            "filename: expected a string such as 'log', got None. To exclude the rows from the JSON log, "
            "select other sinks: LogReport(sinks=['tensorboard'])"
        )
    if not isinstance(filename, str):
        raise TypeError(
            f"filename: expected a string such as 'log', got {filename!r} of type {type(filename).__name__}"
        )
    if "{" in filename:
        raise ValueError(f"filename: expected a name without placeholders, such as 'log', got {filename!r}")
    path = PurePath(filename)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"filename: expected a file in the run directory, such as 'log', got {filename!r}")
    if path.parts[0] in _RESERVED_NAMES:
        raise ValueError(
            f"filename: {filename!r} is reserved for files of the run. Choose another name, such as 'log'."
        )
    return path.as_posix()


def _check_sinks(sinks: Sequence[str]) -> list[str]:
    if isinstance(sinks, str) or not all(isinstance(name, str) for name in sinks):
        raise TypeError(f"sinks: expected a list of names, such as ['json', 'mlflow'], got {sinks!r}")
    for name in sinks:
        get_sink(re.sub(r"-\d+$", "", name))  # The second sink of one kind is named mlflow-2.
    return list(sinks)
