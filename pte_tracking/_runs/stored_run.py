"""Runs on disk, for scripts and notebooks that read results."""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pte_tracking._runs.summary import read_params, read_provenance, read_tags
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.discovery import find_run, find_runs
from pte_tracking._store.events import Checkpoint, Metrics, Scalar, Status
from pte_tracking._store.layout import check_directory
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.metrics import MetricSummary, read_points, read_rows, summarize_metrics
from pte_tracking._store.status import read_status

if TYPE_CHECKING:
    import pandas
    import polars

_logger = logging.getLogger("pte_tracking")

_ROW_COLUMNS = ("epoch", "iteration", "elapsed_time", "time")
_POINT_COLUMNS = ("key", "step", "value", "epoch", "time")
#: Columns of numbers that may be unknown in all rows.
_OPTIONAL = frozenset({"epoch", "elapsed_time"})


class StoredRun:
    """Run on disk, as returned by :func:`open_runs`.

    The run is read without a lock, so it may be training. Each property is read once, when it is first used, except for
    the status and the checkpoints, which are always current.

    Attributes:
        directory: Absolute path of the run directory.
        id: ID of the run: 32 hexadecimal digits.
        name: Display name of the run.
        group: Group of the run, such as a sweep. None if it belongs to none.
        start_time: Time of the first start in seconds since the Unix epoch.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(f"{directory}/first", params={"lr": 0.1}) as run:
        ...         run.log_metrics({"loss": 0.5}, 1)
        ...     (stored,) = pte.open_runs(directory)
        ...     print(stored.status, stored.params, stored.metrics["loss"].last)
        FINISHED {'lr': 0.1} 0.5
    """

    def __init__(self, directory: Path) -> None:
        manifest = find_run(directory)
        self.directory = directory
        self.id = manifest.id
        self.name = manifest.name
        self.group = manifest.group
        self.start_time = manifest.start_time

    def __repr__(self) -> str:
        return f"<StoredRun {self.name!r} in {str(self.directory)!r}>"

    @property
    def status(self) -> Status:
        """Current status, ``"RUNNING"``, ``"FINISHED"``, ``"FAILED"``, or ``"KILLED"``."""
        return read_status(self.directory)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Checkpoints that were not pruned or superseded, in ascending order of their steps."""
        return list_checkpoints(self.directory)

    @functools.cached_property
    def params(self) -> dict[str, Scalar]:
        """Hyperparameters. Nested names are joined with ``/``."""
        return read_params(self.directory)

    @functools.cached_property
    def tags(self) -> dict[str, str]:
        """Tags. The last value of each tag counts."""
        return read_tags(self.directory)

    @functools.cached_property
    def provenance(self) -> dict[str, str]:
        """Origin of the last session by name, such as ``git_commit``. Unknown values are missing."""
        return read_provenance(self.directory)

    @functools.cached_property
    def metrics(self) -> dict[str, MetricSummary]:
        """Last, lowest, and highest value of each metric, with their steps.

        The attributes are ``last``, ``last_step``, ``lowest``, ``lowest_step``, ``highest``, and ``highest_step``.
        Those of the lowest and the highest value are None if no value is finite.
        """
        return summarize_metrics(self.directory).summaries

    @overload
    def frame(
        self, kind: Literal["rows", "points"] = "rows", *, log: str = "log", library: Literal["pandas"] = "pandas"
    ) -> pandas.DataFrame: ...

    @overload
    def frame(
        self, kind: Literal["rows", "points"] = "rows", *, log: str = "log", library: Literal["polars"]
    ) -> polars.DataFrame: ...

    def frame(
        self,
        kind: Literal["rows", "points"] = "rows",
        *,
        log: str = "log",
        library: Literal["pandas", "polars"] = "pandas",
    ) -> pandas.DataFrame | polars.DataFrame:
        """Return the metrics of the run as a data frame, without superseded events.

        Args:
            kind: ``"rows"`` for the rows of a log, with the columns ``epoch``, ``iteration``, ``elapsed_time``,
                ``time``, and one for each metric. ``"points"`` for the data points that backends show, with the columns
                ``key``, ``step``, ``value``, ``epoch``, and ``time``. A value that an evaluation measured between two
                rows is a point at its own step, while the row contains the mean. Times are in seconds since the Unix
                epoch.
            log: File name of the JSON log whose rows are returned.
            library: Library of the data frame.

        Returns:
            The data frame, in the order in which the metrics were logged. Points of metrics that no sink receives,
            such as those of ``LogReport(sinks=[])``, are at the end.

        Raises:
            ValueError: If ``kind`` or ``library`` is unknown, or the run has rows in other logs only.
            ImportError: If the library is not installed.

        Example:
            >>> import tempfile
            >>> import pte_tracking as pte
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     with pte.Run(directory) as run:
            ...         run.log_metrics({"loss": 0.5}, 10)
            ...     (stored,) = pte.open_runs(directory)
            ...     print(stored.frame()[["iteration", "loss"]].to_string(index=False))
             iteration  loss
                    10   0.5
        """
        if kind not in ("rows", "points"):
            raise ValueError(f"kind: expected 'rows' or 'points', got {kind!r}")
        if library not in ("pandas", "polars"):
            raise ValueError(f"library: expected 'pandas' or 'polars', got {library!r}")
        columns = _ROW_COLUMNS if kind == "rows" else _POINT_COLUMNS
        records = list(self._read_rows(log) if kind == "rows" else self._read_points())
        keys = dict.fromkeys([*columns, *itertools.chain.from_iterable(records)])
        # Columns of Python lists: an unknown number is missing in both libraries, also if no row has one.
        table = {key: [record.get(key) for record in records] for key in keys}
        with required_by("frame()", library, library):
            if library == "polars":
                import polars

                # Not strict, because a column of fractions may start with integers.
                return polars.DataFrame(table, schema_overrides=dict.fromkeys(_OPTIONAL, polars.Float64), strict=False)
            import pandas

        return pandas.DataFrame(table).astype(dict.fromkeys(_OPTIONAL & keys.keys(), float))

    def _read_rows(self, log: str) -> list[dict[str, Any]]:
        rows = list(read_rows(self.directory))
        logs = sorted({str(row.log) for row in rows})
        if rows and log not in logs:
            raise ValueError(f"log: the run has no rows in {log!r}. Its logs: {', '.join(map(repr, logs))}.")
        return [_to_record(row) for row in rows if row.log == log]

    def _read_points(self) -> Iterator[dict[str, Any]]:
        for event, points in read_points(self.directory):
            for key, value in points.items():
                yield {"key": key, "step": event.step, "value": value, "epoch": event.epoch, "time": event.time}


def open_runs(directory: str | os.PathLike[str], *, group: str | None = None) -> list[StoredRun]:
    """Find the runs at or below a directory, including archived ones.

    Nothing is written or locked, and no snapshot is loaded. A directory that cannot be read, or contains a damaged run,
    is logged and skipped.

    Args:
        directory: Directory to search, including subdirectories.
        group: Group of the returned runs. Defaults to None: all runs.

    Returns:
        The runs, ordered by the time of their first start.

    Raises:
        NotADirectoryError: If ``directory`` is not a directory.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     for lr in (0.1, 0.01):
        ...         with pte.Run(f"{directory}/{lr}", params={"lr": lr}) as run:
        ...             run.log_metrics({"val/loss": 2 * lr}, 1)
        ...     best = min(pte.open_runs(directory), key=lambda run: run.metrics["val/loss"].lowest)
        ...     print(best.params)
        {'lr': 0.01}
    """
    check_directory("directory", directory)
    root = Path(os.path.abspath(directory))
    if not root.is_dir():
        raise NotADirectoryError(f"directory: {str(directory)!r} is not a directory. Pass one that contains runs.")
    runs = []
    for path in find_runs(root, _log_skipped):
        try:
            runs.append(StoredRun(path))
        except (RunNotFoundError, OSError) as error:
            _log_skipped(error)
    selected = [run for run in runs if group in (None, run.group)]
    return sorted(selected, key=lambda run: run.start_time)


def _log_skipped(error: Exception) -> None:
    _logger.warning("A run was skipped because it cannot be read. %s", error)


def _to_record(row: Metrics) -> dict[str, Any]:
    clocks = {"epoch": row.epoch, "iteration": row.step, "elapsed_time": row.elapsed_time, "time": row.time}
    return clocks | {f"metrics/{key}" if key in clocks else key: value for key, value in row.values.items()}
