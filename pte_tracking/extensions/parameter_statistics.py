"""Statistics of weights and gradients, among the reported values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager, TriggerLike
from pte_tracking.extensions._parameters import dense_values, named_tensors, should_measure
from pte_tracking.reporter import DictSummary, report
from pte_tracking.triggers import get_trigger

#: Takes the flattened values of one parameter, and gives one number or several.
Statistic: TypeAlias = Callable[[Tensor], Any]


class ParameterStatistics(Extension):
    """Reports statistics of a model's weights and gradients.

    It runs after every iteration, or as often as ``extend(..., trigger=)`` says, and computes the statistics
    then. Whenever its inner trigger fires, it reports their means since the last time, as
    ``prefix/layer.weight/data/mean`` and ``prefix/layer.weight/grad/mean``; a function that gives several
    numbers has ``/0``, ``/1`` ... appended. A parameter without a gradient has no statistics of it. What is
    computed on another device stays there until it is reported.

    Args:
        links: The model, or several.
        statistics: Functions by name, each from the flattened values of one parameter to one number or
            several; ``"default"`` for :attr:`default_statistics`, None for none yet.
        report_params: Whether to look at the weights.
        report_grads: Whether to look at their gradients.
        prefix: Put before the keys.
        trigger: When to report (not when the extension itself runs).
        skip_nan_params: Report NaN, once, for a parameter that holds a NaN, without calling the functions.
            This makes the host wait for the device once each time.

    Raises:
        ValueError: Several of ``links`` have a parameter of the same name.

    Attributes:
        default_statistics: Mean, standard deviation (of a sample), least, greatest and the number of zeros.

    State in snapshots: the means under way and the inner trigger's state.
    """

    priority = PRIORITY_WRITER
    needs_model_state = True
    default_name = "parameter_statistics"

    default_statistics: ClassVar[Mapping[str, Statistic]] = {
        "mean": torch.mean,
        # A single value varies by nothing, where torch would say NaN, with a warning.
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
        self._statistics: dict[str, Statistic] = {}
        selected = self.default_statistics if statistics == "default" else statistics or {}
        for name, function in selected.items():
            self.register_statistics(name, function)
        self._trigger = get_trigger(trigger)
        self._skip_nan_params = skip_nan_params
        self._summary = DictSummary()

    def register_statistics(self, name: str, function: Statistic) -> None:
        """Adds a statistic, or replaces the one of that name."""
        if not callable(function):
            raise TypeError(f"statistics: {name!r} must be a function of a one-dimensional tensor, got {function!r}")
        self._statistics[name] = function

    @torch.no_grad()
    def __call__(self, manager: Manager) -> None:
        is_due = self._trigger.evaluate(manager)  # on all ranks: it may need the others
        tensors = dict(self._tensors())
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
