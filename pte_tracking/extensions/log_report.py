"""The log: means of what was reported, a row for each interval."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._runs.run import Run
from pte_tracking._store import layout
from pte_tracking._store.events import Number
from pte_tracking._store.values import to_numbers
from pte_tracking.reporter import DictSummary
from pte_tracking.sinks import get_sink
from pte_tracking.triggers import get_trigger

if TYPE_CHECKING:
    import pandas

#: A row of a log: numbers by key, ``epoch``, ``iteration`` and ``elapsed_time`` among them.
Row: TypeAlias = dict[str, Number]


class LogReport(Extension):
    """Logs the means of reported values over intervals.

    It runs after every iteration, to take in what was reported; ``extend(..., trigger=)`` can say which iterations
    count. Whenever its inner trigger fires, the means since the last time become one row of the run: the JSON log
    gets it, TensorBoard, MLflow and every other sink. To each row are added ``epoch`` (where the loop knows epochs),
    ``iteration`` and ``elapsed_time`` in seconds. It reports nothing. The values of a last interval that is not
    over when the training ends are not logged.

    Under ``torch.distributed`` the means are over all that was reported on any rank, each value weighing the same: one
    collective for each row.

    Rows are not kept here, but in the record of the run: however many there are, the next one costs the same, and
    neither the memory nor a snapshot grows. :attr:`log` and :meth:`to_dataframe` read them back.

    Args:
        keys: Keys of the values to log, or one key; all if None.
        trigger: When to log a row (not when the extension itself runs).
        postprocess: Called with each row before it is logged; it may change all of it but ``iteration``.
        filename: The JSON log's file in the run's directory; give each of several reports its own.
        sinks: Names of the sinks that get the rows; all of the run if None.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The file would lie outside the run's directory or take the place of the record, or a sink's name
            is unknown.

    State in snapshots: the means under way and the inner trigger's state.
    """

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
        """``"epoch"`` or ``"iteration"``: what the intervals between rows are counted in."""
        return getattr(self._trigger, "unit", "epoch")

    @property
    def log(self) -> list[Row]:
        """All rows of the log file that hold, those before a resume included, read back from the record of the run.

        Raises:
            RuntimeError: The training has not begun.
        """
        if self._run is None:
            raise RuntimeError("log: the training has not begun, so it is not known yet which run this log belongs to")
        rows = self._run.rows(self._filename)
        return [_make_row(event.values, event.epoch, event.step, event.elapsed_time) for event in rows]

    def to_dataframe(self) -> pandas.DataFrame:
        """All rows of the log file that hold, as a table.

        Raises:
            ImportError: pandas is not installed.
            RuntimeError: The training has not begun.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe() needs pandas, which is not installed: pip install pandas") from error
        return pandas.DataFrame(self.log)

    def subscribe(self, function: Callable[[Row], object]) -> None:
        """Has a function called with each new row, once it is in the record; it must not change the row."""
        if function not in self._subscribers:
            self._subscribers.append(function)

    def initialize(self, manager: Manager) -> None:
        self._run = manager.run

    def __call__(self, manager: Manager) -> None:
        observation = manager.observation
        if self._keys is not None:
            observation = {key: observation[key] for key in self._keys if key in observation}
        is_due = manager.is_before_training or self._trigger.evaluate(manager)
        is_single_process = manager.world.is_single_process
        if is_due and is_single_process and self._summary.is_empty and set(map(type, observation.values())) == {float}:
            self._log_row(manager, dict(observation))  # each value is its own mean
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
            "filename: expected a string such as 'log', got None; to keep the rows from the JSON log, "
            "say which sinks get them: LogReport(sinks=['tensorboard'])"
        )
    if not isinstance(filename, str):
        raise TypeError(
            f"filename: expected a string such as 'log', got {filename!r} of type {type(filename).__name__}"
        )
    if "{" in filename:
        raise ValueError(f"filename: {filename!r} is no template; all rows of a log go to one file, such as 'log'")
    path = PurePath(filename)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"filename: expected a file in the run's directory, such as 'log', got {filename!r}")
    if path.parts[0] in _RESERVED_NAMES:
        raise ValueError(
            f"filename: {filename!r} is where the record of the run keeps its own; choose another, like 'log'"
        )
    return path.as_posix()


def _check_sinks(sinks: Sequence[str]) -> list[str]:
    if isinstance(sinks, str) or not all(isinstance(name, str) for name in sinks):
        raise TypeError(f"sinks: expected a list of names, such as ['json', 'mlflow'], got {sinks!r}")
    for name in sinks:
        get_sink(re.sub(r"-\d+$", "", name))  # a second sink of the kind is called mlflow-2
    return list(sinks)
