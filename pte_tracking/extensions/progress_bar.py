"""Progress bar of the training."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager, Unit
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking.extensions._bar import can_show
from pte_tracking.extensions._columns import PROGRESS_KEYS
from pte_tracking.extensions._progress_display import BarDisplay, Display, LineDisplay
from pte_tracking.extensions.log_report import LogReport, Row
from pte_tracking.reporter import Value
from pte_tracking.triggers import IntervalTrigger
from pte_tracking.triggers.interval import exact_fraction

_MILESTONE_SECONDS = 0.02  # minimum time between two updates at the ends of epochs


class ProgressBar(Extension):
    """Extension that shows a progress bar with the epoch, iterations, remaining time, and newest values.

    The extension runs after every iteration on rank 0, before other extensions, and redraws the bar at most 10 times
    per second, and at the end of an epoch. The remaining time is estimated from the average speed since the start or
    the resume, including evaluations. The bar shows as many of the newest values as fit, in the order in which they
    were reported first. In a narrow terminal, the bar makes room for the first value, and then the speed for the
    counts. Values on another device are not copied for the bar. They appear with the next row of
    :class:`~pte_tracking.extensions.LogReport`. In a notebook with ipywidgets, the bar is a widget. If the output is
    not a terminal, lines are printed instead, at most one every 10 seconds and fewer in a long training.

    The extension reports no values. Snapshots contain no state of the extension.

    Args:
        training_length: Length of the training, such as ``(20, "epoch")``. Defaults to the length set by the stop
            trigger of the manager. If neither is set, the bar has no end.
        update_interval: Number of iterations between two checks of the clock. Defaults to 1.
        bar_length: Length of the bar in characters. Defaults to the available width.
        out: Output stream. Defaults to the standard error stream.

    Raises:
        TypeError: If ``training_length`` is not a pair of a number and a unit.
        ValueError: If ``training_length`` is not positive or its unit is unknown, or if ``update_interval`` or
            ``bar_length`` is not a positive integer.

    Example:
        >>> import io
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> out = io.StringIO()
        >>> bar = extensions.ProgressBar(out=out)
        >>> with pte.ExtensionsManager({}, 2, [bar], iters_per_epoch=4, sinks=[]) as manager:
        ...     for batch in manager.batches(range(4)):
        ...         with manager.run_iteration():
        ...             pte.report({"train/loss": 0.5})
        >>> out.getvalue().partition(" [")[0]
        'epoch 2/2  100%  8/8'
    """

    rank_zero_only = True
    #: Before evaluations, so that the bar shows the current iteration while they run.
    priority = PRIORITY_WRITER + 1

    @refuse_unknown()
    def __init__(
        self,
        training_length: tuple[float, Unit] | None = None,
        update_interval: int = 1,
        bar_length: int | None = None,
        out: TextIO | None = None,
    ) -> None:
        if training_length is not None:
            if not isinstance(training_length, tuple | list) or len(training_length) != 2:
                raise TypeError(f"training_length: expected a pair such as (20, 'epoch'), got {training_length!r}")
            training_length = IntervalTrigger(*training_length).training_length
        for argument, count in (("update_interval", update_interval), ("bar_length", bar_length)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise ValueError(f"{argument}: expected a positive integer, got {count!r}")
        self._training_length = training_length
        self._update_interval = update_interval
        self._bar_length = bar_length
        self._out = out
        self._display: Display | None = None
        self._total: int | None = None
        self._row: Row = {}
        self._observed: dict[str, Value] = {}
        #: Observation of the newest iteration, to which later extensions of the iteration add values.
        self._observation: Mapping[str, Value] = {}
        #: Keys in the order of their first values, so that none moves.
        self._keys: dict[str, None] = {}
        self._next_milestone_time = 0.0

    def initialize(self, manager: Manager) -> None:
        self._total = self._total_iterations(manager)
        self._open_display(manager)
        manager.run.on_interrupt.append(lambda: self.finalize(manager))
        try:
            log_report = manager.get_extension("LogReport")
        except ValueError:
            return
        if isinstance(log_report, LogReport):
            log_report.subscribe(self._row.update)

    def __call__(self, manager: Manager) -> None:
        self._observed.update(self._observation)
        self._observation = manager.observation
        display = self._display or self._open_display(manager)
        if display is None:
            return
        iteration, now = manager.iteration, time.monotonic()
        display.count(iteration)
        if now >= display.next_update_time and not iteration % self._update_interval:
            self._show(manager, display)
        elif display.shows_milestones and now >= self._next_milestone_time and self._is_milestone(manager):
            self._show(manager, display)
            self._next_milestone_time = now + _MILESTONE_SECONDS

    def finalize(self, manager: Manager) -> None:
        if self._display is not None:
            self._show(manager, self._display)
            self._display.close()
            self._display = None

    def _open_display(self, manager: Manager) -> Display | None:
        out = sys.stderr if self._out is None else self._out
        if out is None:  # The process was started without a standard error stream.
            return None
        if can_show(out):
            self._display = BarDisplay(manager.iteration, self._total, self._bar_length, out)
            self._show(manager, self._display)
        else:
            self._display = LineDisplay(manager.iteration, out)
        return self._display

    def _is_milestone(self, manager: Manager) -> bool:
        """Return whether an evaluation or the end of the training may follow, during which the display is seen."""
        progress = manager.updater
        return manager.iteration == self._total or (progress.has_epoch_length and progress.is_new_epoch)

    def _show(self, manager: Manager, display: Display) -> None:
        self._observed.update(self._observation)
        host_values = {key: value for key, value in self._observed.items() if isinstance(value, float | int)}
        values = {**self._row, **host_values}
        self._keys.update(dict.fromkeys(key for key in values if key not in PROGRESS_KEYS))
        if self._total is not None:
            self._total = max(self._total, manager.iteration)  # The training may exceed training_length.
        newest = {key: values[key] for key in self._keys if key in values}
        display.show(manager.iteration, self._total, self._format_epoch(manager), newest)

    def _total_iterations(self, manager: Manager) -> int | None:
        length = self._training_length or manager.training_length
        if length is None:
            return None
        period = exact_fraction("training_length", length[0])
        if length[1] == "iteration":
            return math.ceil(period)
        if self._training_length is None and not manager.updater.has_epoch_length:
            return None  # A training that counts in iterations does not need to know the epoch length.
        return math.ceil(period * manager.iters_per_epoch) - _epoch_shift(manager)

    def _format_epoch(self, manager: Manager) -> str:
        done = manager.updater.epoch_or_none
        if done is None:
            return ""
        # An evaluation at the end of an epoch belongs to this epoch.
        current = done if manager.updater.is_new_epoch else done + 1
        if self._total is None:
            return f"epoch {current}  "
        epochs = math.ceil((self._total + _epoch_shift(manager)) / manager.iters_per_epoch)
        return f"epoch {min(current, epochs)}/{epochs}  "


def _epoch_shift(manager: Manager) -> int:
    """Return the difference between the rescaled and the actual number of completed iterations.

    It is not zero after the epoch length changed on a resume.
    """
    return manager.updater.rescaled_iteration - manager.iteration
