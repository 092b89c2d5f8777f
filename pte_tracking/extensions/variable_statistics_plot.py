"""How weights and gradients are spread over the training, as a picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking.extensions._parameters import dense_values, should_measure
from pte_tracking.extensions._picture import Picture
from pte_tracking.triggers import get_trigger

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Tensors, modules (for their parameters), or lists of them.
Variables: TypeAlias = "Tensor | nn.Module | Iterable[Variables]"

_COLOR = "tab:blue"


class VariableStatisticsPlot(Extension):
    """Plots mean, standard deviation and percentiles of variables over the iterations.

    All variables together are one population; their gradients, where there are any, are another. It runs
    after every iteration and takes a sample, at first each time; when there are ``max_sample_size`` of them,
    every second one is dropped and only every second iteration is looked at from then on, and so forth. So
    the samples lie at equal distances over the whole training, and neither memory, snapshots nor drawing grow
    with it. (Chainer drew them at random, which took from the generator that the training uses.)

    Whenever its inner trigger fires, the picture is drawn anew: ``filename`` in the run's directory is replaced, and
    every backend that shows figures gets it. After a hundred times it is drawn less often (see
    :class:`~pte_tracking.extensions._picture.Picture`). It reports nothing.

    Args:
        targets: A tensor, a module, or a list of them.
        max_sample_size: Most samples that are kept.
        report_data: Whether to look at the values.
        report_grad: Whether to look at the gradients.
        plot_mean: Whether to plot the mean.
        plot_std: Whether to plot the standard deviation (of a sample), around the mean if that is plotted.
        percentile_sigmas: Percentiles to plot, from 0 to 100 and ascending: the first and the last frame a
            band, so do the second and the last but one, and so on; the one in the middle is a line. They need
            all values sorted.
        trigger: When to draw (not when the extension itself runs).
        filename: The picture's file in the run's directory; ``"statistics.png"`` if None.
        figsize: Width and height in inches; matplotlib's default if None.
        marker: matplotlib's marker of each sample; None for none.
        grid: Whether to draw a grid.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is nothing to look at or nothing to plot.

    State in snapshots: the samples (``max_sample_size`` times 2 times 11 numbers by default) and the inner
    trigger's state.
    """

    needs_model_state = True

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
            raise ValueError(f"targets: expected tensors or modules with parameters, got {targets!r}, which holds none")
        if max_sample_size < 2:
            raise ValueError(f"max_sample_size: expected 2 or more, got {max_sample_size!r}")
        self._max_sample_size = max_sample_size
        self._populations = ["data"] * report_data + ["grad"] * report_grad
        self._moments = ["mean"] * plot_mean + ["std"] * plot_std
        self._percentiles = _check_percentiles(percentile_sigmas)
        if not self._populations or not (self._moments or self._percentiles):
            raise ValueError(
                "nothing to plot: expected report_data or report_grad, and plot_mean, plot_std or percentile_sigmas"
            )
        self._trigger = get_trigger(trigger)
        self._marker = marker
        self._grid = grid
        self._picture = Picture("VariableStatisticsPlot", filename or "statistics.png", figsize)
        self._call_count = 0
        self._stride = 1
        self._iterations: list[int] = []
        self._samples: list[Tensor] = []

    @staticmethod
    def available() -> bool:
        """Whether matplotlib is installed."""
        return importlib.util.find_spec("matplotlib") is not None

    def __call__(self, manager: Manager) -> None:
        is_due = self._trigger.evaluate(manager)  # on all ranks: it may need the others
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
        """A row for each population, on the host: the moments, then the percentiles; NaN where there is nothing."""
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
        # torch.quantile takes 16 million values at most.
        ordered = values.sort().values
        positions = torch.tensor(self._percentiles, dtype=torch.float64) / 100 * (len(values) - 1)
        below = positions.floor().long()
        above = positions.ceil().long()
        weights = (positions - below).to(values)
        return torch.lerp(ordered[below.to(values.device)], ordered[above.to(values.device)], weights)

    def _paint(self, figure: Figure) -> None:
        rows = bool(self._moments) + bool(self._percentiles)
        axes = figure.subplots(rows, len(self._populations), sharex=True, squeeze=False)
        for column, values in enumerate(torch.stack(self._samples).unbind(1)):
            axes[0, column].set_title(self._populations[column])
            axes[-1, column].set_xlabel("iteration")
            if self._moments:
                self._paint_moments(axes[0, column], values)
            if self._percentiles:
                self._paint_percentiles(axes[-1, column], values[:, len(self._moments) :])
        for panel in axes.flat:
            panel.grid(self._grid)
            panel.set_axisbelow(True)
        if self._moments:
            axes[0, 0].set_ylabel(", ".join(self._moments))
        # Before the legend, which is to lie outside and take no room from the axes.
        figure.tight_layout()
        if self._percentiles:
            axes[-1, -1].legend(title="percentiles", bbox_to_anchor=(1.05, 1), loc="upper left", borderaxespad=0)

    def _paint_moments(self, axes: Axes, values: Tensor) -> None:
        middle = values[:, 0].numpy()
        axes.plot(self._iterations, middle, color=_COLOR, marker=self._marker)
        if len(self._moments) == 2:
            deviation = values[:, 1].numpy()
            axes.fill_between(self._iterations, middle - deviation, middle + deviation, alpha=0.2, color=_COLOR, lw=0)

    def _paint_percentiles(self, axes: Axes, values: Tensor) -> None:
        count = len(self._percentiles)
        for i in range(count // 2):
            low, high = values[:, i].numpy(), values[:, count - 1 - i].numpy()
            name = f"{self._percentiles[i]:g} to {self._percentiles[count - 1 - i]:g}"
            axes.fill_between(self._iterations, low, high, alpha=0.2, color=_COLOR, lw=0, label=name)
        if count % 2:
            middle = values[:, count // 2].numpy()
            name = f"{self._percentiles[count // 2]:g}"
            axes.plot(self._iterations, middle, color=_COLOR, marker=self._marker, label=name)


def _unpack(targets: Variables) -> list[Tensor]:
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
