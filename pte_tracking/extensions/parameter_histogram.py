"""Histograms of weights and gradients, for the backends that show them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from pte_tracking._interface.extension import Extension, Manager
from pte_tracking.extensions._parameters import dense_values, named_tensors, should_measure


class ParameterHistogram(Extension):
    """Logs the distribution of each weight and gradient of a model.

    It runs at the end of each epoch, or when ``extend(..., trigger=)`` says. It reports nothing; the run gets
    one histogram for each parameter, ``prefix/layer.weight/data``, and one for its gradient,
    ``prefix/layer.weight/grad``, if it has one, without the values that are not finite.

    Args:
        links: The model, or several.
        report_params: Whether to log the weights.
        report_grads: Whether to log their gradients.
        prefix: Put before the keys.

    Raises:
        ValueError: Several of ``links`` have a parameter of the same name.

    State in snapshots: none.
    """

    trigger = (1, "epoch")
    needs_model_state = True

    def __init__(
        self,
        links: nn.Module | Iterable[nn.Module],
        report_params: bool = True,
        report_grads: bool = True,
        prefix: str | None = None,
    ) -> None:
        self._tensors = named_tensors(links, report_params, report_grads, prefix)

    def __call__(self, manager: Manager) -> None:
        tensors = dict(self._tensors())
        if should_measure(manager.world, tensors.values()):
            for key, values in dense_values(tensors):
                manager.run.log_histogram(key, values, manager.iteration)
