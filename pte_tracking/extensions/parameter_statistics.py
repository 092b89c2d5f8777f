"""Statistics of weights and gradients as reported values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from pte_tracking._interface.extension import PRIORITY_WRITER, Manager, TriggerLike
from pte_tracking.extensions._interval import IntervalExtension
from pte_tracking.extensions._parameters import GradientCheck, dense_values, named_tensors, should_measure
from pte_tracking.reporter import DictSummary, report

#: Function that takes the flattened values of one parameter and returns one number or several.
Statistic: TypeAlias = Callable[[Tensor], Any]


class ParameterStatistics(IntervalExtension):
    """Extension that reports statistics of the weights and gradients of models.

    The extension runs after every iteration, or according to ``extend(..., trigger=...)``, and computes the statistics.
    When its inner trigger fires, it reports their means since the last firing as ``prefix/layer.weight/data/mean`` and
    ``prefix/layer.weight/grad/mean``. If a function returns several numbers, the keys end in ``/0``, ``/1``, and so on.
    A parameter without a gradient has no gradient statistics. A warning is logged if no parameter has one, because the
    loop calls ``zero_grad()`` after the step. Results computed on another device stay there until they are reported.

    Snapshots contain the results of the current interval and the state of the inner trigger.

    Args:
        links: Model, or several models.
        statistics: Mapping of names to functions that take the flattened values of one parameter, a tensor of shape
            ``(n,)``, and return one number or several. Defaults to ``"default"``, which selects
            :attr:`default_statistics`. None selects no statistics. Add them with :meth:`register_statistics`.
        report_params: Whether to report statistics of the weights. Defaults to True.
        report_grads: Whether to report statistics of the gradients. Defaults to True.
        prefix: First part of the keys. Defaults to no prefix.
        trigger: Inner trigger, which ends an interval. Defaults to ``(1, "epoch")``.
        skip_nan_params: Report NaN for a parameter that contains NaN, without calling the functions. Each check
            synchronizes with the device once. Defaults to False.

    Raises:
        TypeError: If a value in ``links`` is not a module, or if a statistic is not callable.
        ValueError: If several models have a parameter of the same name, one is in ``FullyShardedDataParallel``, or
            ``trigger`` is invalid.

    Attributes:
        default_statistics: Functions ``mean``, ``std`` (sample standard deviation), ``min``, ``max``, and ``zeros``
            (number of zeros).

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(1, 2, bias=False)
        >>> _ = torch.nn.init.constant_(model.weight, 2.0)
        >>> statistics = extensions.ParameterStatistics(model, {"sum": torch.sum}, prefix="net")
        >>> with pte.ExtensionsManager(model, 1, [statistics], iters_per_epoch=1, sinks=[]) as manager:
        ...     with manager.run_iteration():
        ...         pass
        >>> dict(manager.observation)
        {'net/weight/data/sum': 4.0}
    """

    priority = PRIORITY_WRITER
    default_name = "parameter_statistics"

    default_statistics: ClassVar[Mapping[str, Statistic]] = {
        "mean": torch.mean,
        # The deviation of a single value is 0. The default correction of torch would result in NaN and a warning.
        "std": lambda values: torch.std(values, correction=min(1, values.numel() - 1)),
        "min": torch.min,
        "max": torch.max,
        "zeros": lambda values: (values == 0).sum(),
    }

    def __init__(
        self,
        links: nn.Module | Iterable[nn.Module],
        statistics: Mapping[str, Statistic] | Literal["default"] | None = "default",
        report_params: bool = True,
        report_grads: bool = True,
        prefix: str | None = None,
        trigger: TriggerLike = (1, "epoch"),
        skip_nan_params: bool = False,
    ) -> None:
        self._tensors = named_tensors(links, report_params, report_grads, prefix)
        self._gradients = GradientCheck("ParameterStatistics")
        self._statistics: dict[str, Statistic] = {}
        selected = self.default_statistics if statistics == "default" else statistics or {}
        for name, function in selected.items():
            self.register_statistics(name, function)
        super().__init__(trigger)
        self._skip_nan_params = skip_nan_params
        self._summary = DictSummary()

    def register_statistics(self, name: str, function: Statistic) -> None:
        """Add a statistic, or replace the statistic of the same name.

        Args:
            name: Last part of the reported keys.
            function: Function that takes the flattened values of one parameter, a tensor of shape ``(n,)``, and returns
                one number or several.

        Raises:
            TypeError: If ``function`` is not callable.
        """
        if not callable(function):
            raise TypeError(
                f"statistics: expected a function of a one-dimensional tensor as {name!r}, got {function!r}"
            )
        self._statistics[name] = function

    @property
    def reports_each_iteration(self) -> bool:
        return self._is_always_due

    @torch.no_grad()
    def __call__(self, manager: Manager) -> None:
        is_due = self._trigger.evaluate(manager)  # A trigger may communicate, so every rank evaluates it.
        self._gradients.check(manager, self._tensors.parameters_with_grads())
        tensors = dict(self._tensors.read())
        if not should_measure(manager.world, tensors.values()):
            return
        tensors = dict(dense_values(tensors))
        nan_keys = _find_nan(tensors) if self._skip_nan_params else set()
        entries: dict[str, Any] = {}
        for key, tensor in tensors.items():
            flat = tensor.flatten()
            for name, function in self._statistics.items():
                entries.update(_to_entries(f"{key}/{name}", math.nan if key in nan_keys else function(flat)))
        self._summary.add(entries)
        if is_due:
            report(self._summary.compute_mean())
            self._summary = DictSummary()

    def state_dict(self) -> dict[str, Any]:
        return {"summary": self._summary.state_dict(), "trigger": self._trigger.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._summary.load_state_dict(state["summary"])
        self._trigger.load_state_dict(state["trigger"])


def _find_nan(tensors: Mapping[str, Tensor]) -> set[str]:
    if not tensors:
        return set()
    device = next(iter(tensors.values())).device
    flags = torch.stack([tensor.isnan().any().to(device) for tensor in tensors.values()])
    return {key for key, flag in zip(tensors, flags.tolist(), strict=True) if flag}


def _to_entries(key: str, value: Any) -> dict[str, Any]:
    if isinstance(value, float | int):
        return {key: value}
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    if tensor.numel() == 1:
        return {key: tensor}
    return {f"{key}/{i}": number for i, number in enumerate(tensor.flatten().unbind())}
