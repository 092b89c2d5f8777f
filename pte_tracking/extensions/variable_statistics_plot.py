"""Plot of the distribution of weights and gradients over the training."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking._interface.other_names import NO_WRITERS, accept_names, refuse_names
from pte_tracking._runs import plot_style
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking.extensions._interval import IntervalExtension
from pte_tracking.extensions._parameters import GradientCheck, check_not_flat, dense_values, should_measure
from pte_tracking.extensions._picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A tensor, a module, which represents its parameters, or an iterable of these.
Variables: TypeAlias = "Tensor | nn.Module | Iterable[Variables]"

_TITLES = {"data": "values", "grad": "gradients"}
_MAX_SHADE = 0.6  # share of the color in the innermost band


class VariableStatisticsPlot(IntervalExtension):
    """Extension that plots the mean, standard deviation, and percentiles of variables over iterations.

    The values of all variables form one population. The gradients form another. A warning is logged if there are none,
    because the loop calls ``zero_grad()`` after the step. The extension runs after every iteration and takes a sample.
    When ``max_sample_size`` samples exist, every second sample is dropped and the sampling interval is doubled. The
    samples are therefore evenly spaced over the training, and memory, snapshots, and drawing time are bounded. Sampling
    does not use random numbers.

    When the inner trigger fires, the plot is redrawn. The file ``filename`` in the run directory is replaced, and the
    figure is logged to the run for all sinks that support figures. In a notebook, the plot is shown below the cell and
    updated in place. After 100 versions, the plot is redrawn less often. The last version is drawn at the end of the
    training.

    The extension reports no values. Snapshots contain the samples (by default at most 1000 samples of 2 times 11
    numbers) and the state of the inner trigger.

    Args:
        targets: Tensor, module, or an iterable of these. A module represents its parameters.
        max_sample_size: Maximum number of stored samples, at least 2. Defaults to 1000.
        report_data: Whether to plot the values of the variables. Defaults to True.
        report_grad: Whether to plot the gradients. Defaults to True.
        plot_mean: Whether to plot the mean. Defaults to True.
        plot_std: Whether to plot the sample standard deviation, as a band around the mean if the mean is plotted.
            Defaults to True.
        percentile_sigmas: Percentiles to plot, ascending numbers from 0 to 100. The first and the last percentile form
            a band, as do the second and the second to last, and so on. The middle percentile is a line. Percentiles
            require sorting all values. Defaults to 0, 0.13, 2.28, 15.87, 50, 84.13, 97.72, 99.87, and 100.
        trigger: Inner trigger, which redraws the plot. The extension itself runs in every iteration. Defaults to
            ``(1, "epoch")``.
        filename: Path of the file relative to the run directory, also accepted as ``file_name``. The suffix selects the
            format. Defaults to ``"statistics.png"``.
        figsize: Width and height in inches. Defaults to the default of matplotlib.
        marker: Marker of matplotlib for each sample. Defaults to no marker.
        grid: Whether to draw a grid. Defaults to True.

    Raises:
        ImportError: If matplotlib is not installed.
        TypeError: If ``targets`` contains a value that is not a tensor or a module.
        ValueError: If there is no variable or nothing to plot, an argument is out of range, or a model is in
            ``FullyShardedDataParallel``.

    Example:
        >>> import pathlib
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(2, 2)
        >>> plot = extensions.VariableStatisticsPlot(model, report_grad=False, filename="weights.png")
        >>> with pte.ExtensionsManager(model, 1, [plot], iters_per_epoch=2, sinks=[]) as manager:
        ...     for batch in manager.batches(range(2)):
        ...         with manager.run_iteration():
        ...             pass
        >>> (pathlib.Path(manager.out) / "weights.png").exists()
        True
    """

    @accept_names(file_name="filename")
    @refuse_names(writer=NO_WRITERS)
    @refuse_unknown()
    def __init__(
        self,
        targets: Variables,
        max_sample_size: int = 1000,
        report_data: bool = True,
        report_grad: bool = True,
        plot_mean: bool = True,
        plot_std: bool = True,
        percentile_sigmas: float | Sequence[float] = (0, 0.13, 2.28, 15.87, 50, 84.13, 97.72, 99.87, 100),
        trigger: TriggerLike = (1, "epoch"),
        filename: str | None = None,
        figsize: tuple[float, float] | None = None,
        marker: str | None = None,
        grid: bool = True,
    ) -> None:
        self._variables = _unpack(targets)
        if not self._variables:
            raise ValueError(f"targets: expected at least 1 tensor or a module with parameters, got {targets!r}")
        if max_sample_size < 2:
            raise ValueError(f"max_sample_size: expected at least 2, got {max_sample_size!r}")
        self._max_sample_size = max_sample_size
        self._populations = ["data"] * report_data + ["grad"] * report_grad
        self._moments = ["mean"] * plot_mean + ["std"] * plot_std
        self._percentiles = _check_percentiles(percentile_sigmas)
        if not self._populations or not (self._moments or self._percentiles):
            raise ValueError(
                "Nothing to plot. Set report_data or report_grad, and plot_mean, plot_std, or percentile_sigmas."
            )
        super().__init__(trigger)
        self._gradients = GradientCheck("VariableStatisticsPlot")
        self._marker = marker
        self._grid = grid
        self._picture = Picture("VariableStatisticsPlot", filename or "statistics.png", figsize)
        self._call_count = 0
        self._stride = 1
        self._iterations: list[int] = []
        self._samples: list[Tensor] = []

    @staticmethod
    def available() -> bool:
        """Return whether matplotlib is installed."""
        return importlib.util.find_spec("matplotlib") is not None

    def __call__(self, manager: Manager) -> None:
        is_due = self._trigger.evaluate(manager)  # A trigger may communicate, so every rank evaluates it.
        self._gradients.check(manager, self._variables if "grad" in self._populations else ())
        if not should_measure(manager.world, self._variables):
            return
        if self._call_count % self._stride == 0:
            self._add_sample(manager.iteration)
        self._call_count += 1
        if is_due:
            self._picture.offer(manager, self._paint)

    def finalize(self, manager: Manager) -> None:
        self._picture.finish(manager, self._paint)

    def state_dict(self) -> dict[str, Any]:
        return {
            "seen": self._call_count,
            "stride": self._stride,
            "picture": self._picture.state_dict(),
            "iterations": self._iterations,
            "samples": torch.stack(self._samples) if self._samples else torch.empty(0),
            "trigger": self._trigger.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._call_count, self._stride = state["seen"], state["stride"]
        self._picture.load_state_dict(state["picture"])
        self._iterations = list(state["iterations"])
        self._samples = list(state["samples"].cpu())
        self._trigger.load_state_dict(state["trigger"])

    def _add_sample(self, iteration: int) -> None:
        if len(self._samples) == self._max_sample_size:
            self._iterations, self._samples = self._iterations[::2], self._samples[::2]
            self._stride *= 2
            if self._call_count % self._stride:
                return
        self._iterations.append(iteration)
        self._samples.append(self._measure())

    @torch.no_grad()
    def _measure(self) -> Tensor:
        """Return a CPU tensor with one row per population: moments, then percentiles. NaN for an empty population."""
        rows = [self._describe(population) for population in self._populations]
        return torch.stack(rows).cpu()

    def _describe(self, population: str) -> Tensor:
        device = self._variables[0].device
        tensors = [variable if population == "data" else variable.grad for variable in self._variables]
        available = {str(index): tensor.detach() for index, tensor in enumerate(tensors) if tensor is not None}
        flat = [values.to(device, torch.float32).flatten() for _, values in dense_values(available)]
        values = torch.cat(flat) if flat else torch.empty(0, device=device)
        if not len(values):
            return torch.full((len(self._moments) + len(self._percentiles),), torch.nan, device=device)
        parts = []
        if "mean" in self._moments:
            parts.append(values.mean()[None])
        if "std" in self._moments:
            parts.append(values.std(correction=min(1, len(values) - 1))[None])
        if self._percentiles:
            parts.append(self._quantiles(values))
        return torch.cat(parts)

    def _quantiles(self, values: Tensor) -> Tensor:
        # torch.quantile is limited to 16 million values.
        ordered = values.sort().values
        positions = torch.tensor(self._percentiles, dtype=torch.float64) / 100 * (len(values) - 1)
        below = positions.floor().long()
        above = positions.ceil().long()
        weights = (positions - below).to(values)
        return torch.lerp(ordered[below.to(values.device)], ordered[above.to(values.device)], weights)

    def _paint(self, figure: Figure) -> None:
        rows = bool(self._moments) + bool(self._percentiles)
        axes = figure.subplots(rows, len(self._populations), sharex=True, squeeze=False)
        for panel in axes.flat:
            plot_style.style_axes(panel, "", grid=self._grid, has_integer_x=True)
        for column, values in enumerate(torch.stack(self._samples).unbind(1)):
            axes[0, column].set_title(_TITLES[self._populations[column]])
            axes[-1, column].set_xlabel("iteration")
            if self._moments:
                self._paint_moments(axes[0, column], values)
            if self._percentiles:
                self._paint_percentiles(axes[-1, column], values[:, len(self._moments) :])
        if self._moments:
            axes[0, 0].set_ylabel(" ± ".join(self._moments))
        if self._percentiles:
            axes[-1, 0].set_ylabel("percentiles")
        figure.tight_layout()
        if self._percentiles:
            plot_style.add_legend(figure, [axes[-1, -1]], "percentiles")

    def _paint_moments(self, axes: Axes, values: Tensor) -> None:
        color, middle = plot_style.base_color(), values[:, 0].numpy()
        if len(self._moments) == 2:
            deviation = values[:, 1].numpy()
            shade = plot_style.mix_color(axes, _MAX_SHADE / 2)
            axes.fill_between(self._iterations, middle - deviation, middle + deviation, color=shade, lw=0)
        axes.plot(self._iterations, middle, color=color, linestyle="-", marker=self._marker)

    def _paint_percentiles(self, axes: Axes, values: Tensor) -> None:
        count = len(self._percentiles)
        for i in range(count // 2):
            low, high = values[:, i].numpy(), values[:, count - 1 - i].numpy()
            name = f"{self._percentiles[i]:g} to {self._percentiles[count - 1 - i]:g}"
            shade = plot_style.mix_color(axes, _MAX_SHADE * (i + 1) / (count // 2))
            axes.fill_between(self._iterations, low, high, color=shade, lw=0, label=name)
        if count % 2:
            middle = values[:, count // 2].numpy()
            name = f"{self._percentiles[count // 2]:g}"
            color = plot_style.base_color()
            axes.plot(self._iterations, middle, color=color, linestyle="-", marker=self._marker, label=name)


def _unpack(targets: Variables) -> list[Tensor]:
    if isinstance(targets, Tensor | nn.Module):
        check_not_flat("targets", [targets])
    if isinstance(targets, Tensor):
        return [targets]
    if isinstance(targets, nn.Module):
        return list(targets.parameters())
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise TypeError(f"targets: expected a tensor, a module or a list of them, got {targets!r}")
    return [variable for target in targets for variable in _unpack(target)]


def _check_percentiles(percentiles: float | Sequence[float]) -> list[float]:
    ascending = [percentiles] if isinstance(percentiles, int | float) else list(percentiles)
    if ascending != sorted(ascending) or not all(0 <= percentile <= 100 for percentile in ascending):
        raise ValueError(f"percentile_sigmas: expected ascending numbers from 0 to 100, got {percentiles!r}")
    return ascending
