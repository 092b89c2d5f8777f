"""Plot of reported values."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking._interface.other_names import NO_WRITERS, accept_names, refuse_names
from pte_tracking._runs import plot_style
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.similar import describe_known
from pte_tracking.extensions._curve import Curve
from pte_tracking.extensions._interval import IntervalExtension, has_ended_an_epoch
from pte_tracking.extensions._picture import Picture
from pte_tracking.reporter import DictSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_logger = logging.getLogger("pte_tracking")

_X_VALUES: Mapping[str, Callable[[Manager], float]] = {
    "iteration": lambda manager: manager.iteration,
    "epoch": lambda manager: manager.epoch,
    "epoch_detail": lambda manager: manager.epoch_detail,
    "elapsed_time": lambda manager: manager.elapsed_time,
}

_X_LABELS = {"epoch_detail": "epoch", "elapsed_time": "elapsed time (seconds)"}


class PlotReport(IntervalExtension):
    """Extension that plots the means of reported values over intervals.

    The extension runs after every iteration. When its inner trigger fires, the means since the last firing become one
    point of each curve, and the plot is redrawn. The file ``filename`` in the run directory is replaced, and the figure
    is logged to the run for all sinks that support figures. In a notebook, the plot is shown below the cell and updated
    in place. After 100 versions, the plot is redrawn less often. At the end of the training, the values since the last
    point become a point, too, and the last version is drawn.

    The memory and the snapshot size of a curve are bounded. A curve of more than 2,048 points keeps the lowest and the
    highest point of each of at least 512 sections.

    The extension reports no values. If a key was never reported, a warning is logged at the end of the training.
    Snapshots contain the curves, the values of the current interval, and the state of the inner trigger.

    Args:
        y_keys: Key or keys of the metrics to plot.
        x_key: Quantity on the x-axis: ``"iteration"``, ``"epoch"``, ``"epoch_detail"``, ``"elapsed_time"`` in seconds,
            or the key of a metric. Defaults to ``"iteration"``.
        trigger: Inner trigger, which ends an interval. The extension itself runs in every iteration. Defaults to
            ``(1, "epoch")``.
        postprocess: Function called with the figure, its axes, and the :class:`~pte_tracking.DictSummary` of the last
            interval before the legend is added and the figure is saved. It can change the figure, and add a legend of
            its own. Defaults to none.
        filename: Path of the file relative to the run directory, also accepted as ``file_name``. The suffix selects the
            format. Several plots in one manager require different names. Defaults to ``"plot.png"``.
        marker: Marker of matplotlib for the points of curves with at most 30 points. None for no marker. Defaults to
            ``"x"``.
        grid: Whether to draw a grid. Defaults to True.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If ``y_keys`` is empty or contains a value that is not a string, if the suffix of ``filename`` is
            not a supported format, or if ``trigger`` is invalid.

    Example:
        >>> import pathlib
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> plot = extensions.PlotReport("train/loss", filename="loss.png")
        >>> with pte.ExtensionsManager({}, 2, [plot], iters_per_epoch=2, sinks=[]) as manager:
        ...     for loss in manager.batches([0.5, 0.25]):
        ...         with manager.run_iteration():
        ...             pte.report({"train/loss": loss})
        >>> (pathlib.Path(manager.out) / "loss.png").exists()
        True
    """

    @accept_names(file_name="filename")
    @refuse_names(writer=NO_WRITERS)
    @refuse_unknown()
    def __init__(
        self,
        y_keys: Iterable[str] | str,
        x_key: str = "iteration",
        trigger: TriggerLike = (1, "epoch"),
        postprocess: Callable[[Figure, Axes, DictSummary], object] | None = None,
        filename: str | None = None,
        marker: str | None = "x",
        grid: bool = True,
    ) -> None:
        self._y_keys = [y_keys] if isinstance(y_keys, str) else list(y_keys)
        if not self._y_keys or not all(isinstance(key, str) for key in self._y_keys):
            raise ValueError(f"y_keys: expected metric keys, such as ['train/loss'], got {y_keys!r}")
        self._x_key = x_key
        self._observed = list(dict.fromkeys([*self._y_keys, *({x_key} - _X_VALUES.keys())]))
        super().__init__(trigger)
        self._postprocess = postprocess
        self._marker = marker
        self._grid = grid
        self._picture = Picture("PlotReport", filename or "plot.png")
        self._curves = {key: Curve() for key in self._y_keys}
        self._has_fired = self._has_failed = False
        self._latest_summary, self._summary = DictSummary(), DictSummary()
        self._shared = SharedSummary()

    @staticmethod
    def available() -> bool:
        """Return whether matplotlib is installed."""
        return importlib.util.find_spec("matplotlib") is not None

    def __call__(self, manager: Manager) -> None:
        observation = manager.observation
        self._summary.add({key: observation[key] for key in self._observed if key in observation})
        if not (manager.is_before_training or self._trigger.evaluate(manager)):
            return
        self._has_fired = True
        self._end_interval(manager, self._shared.reduce(manager.world, self._summary))

    def on_error(self, manager: Manager, exc: Exception, tb: TracebackType | None) -> None:
        self._has_failed = True

    def finalize(self, manager: Manager) -> None:
        """Add the incomplete interval as the last point, and draw the last version."""
        summary = self._summary
        # Other ranks may be in the middle of an iteration, unless the training has reached its end on all of them.
        if manager.stop_trigger and not self._has_failed:
            summary = self._shared.reduce(manager.world, summary)
        if not summary.is_empty:
            self._end_interval(manager, summary)
        self._picture.finish(manager, self._paint)
        missing = [key for key, curve in self._curves.items() if not curve.count and key not in summary]
        if self._has_fired and missing and manager.world.rank == 0 and has_ended_an_epoch(manager):
            # Without values over which they are plotted, all keys are missing.
            unknown = missing[0] if self._x_key in {*_X_VALUES, *manager.observation} else self._x_key
            _logger.warning(
                "PlotReport: no data points for %s over %r. %s",
                ", ".join(map(repr, missing)),
                self._x_key,
                describe_known(unknown, manager.observation),
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "curves": {key: curve.state_dict() for key, curve in self._curves.items()},
            "has_fired": self._has_fired,
            "picture": self._picture.state_dict(),
            "summary": self._summary.state_dict(),
            "trigger": self._trigger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key in self._curves.keys() & state["curves"].keys():
            self._curves[key].load_state_dict(state["curves"][key])
        self._has_fired = state["has_fired"]
        self._picture.load_state_dict(state["picture"])
        self._summary.load_state_dict(state["summary"])
        self._trigger.load_state_dict(state["trigger"])

    def _end_interval(self, manager: Manager, summary: DictSummary) -> None:
        self._add_point(manager, summary)
        if any(curve.count for curve in self._curves.values()):
            self._picture.offer(manager, self._paint)

    def _add_point(self, manager: Manager, summary: DictSummary) -> None:
        self._latest_summary, self._summary = summary, DictSummary()
        means = self._latest_summary.compute_mean()
        read_x = _X_VALUES.get(self._x_key)
        x = read_x(manager) if read_x else means.get(self._x_key)
        if x is None:
            return
        for key in self._y_keys:
            if key in means:
                self._curves[key].add(x, means[key])

    def _paint(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        plot_style.style_axes(
            axes,
            _X_LABELS.get(self._x_key, self._x_key),
            self._name_values(),
            grid=self._grid,
            has_integer_x=self._x_key in ("iteration", "epoch"),
        )
        for key, curve in self._curves.items():
            if curve.count:
                x, y = zip(*curve.points(), strict=True)
                plot_style.draw_curve(axes, x, y, key, self._marker)
        if self._postprocess is not None:
            self._postprocess(figure, axes, self._latest_summary)
        if len(axes.get_legend_handles_labels()[0]) > 1 and axes.get_legend() is None:
            plot_style.add_legend(figure, [axes])

    def _name_values(self) -> str:
        """Return the label of the y-axis: the key, or the last part that all keys have in common."""
        if len(self._y_keys) == 1:
            return self._y_keys[0]
        names = {key.rpartition("/")[2] for key in self._y_keys}
        return names.pop() if len(names) == 1 else ""
