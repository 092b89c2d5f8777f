"""Histograms of weights and gradients."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from pte_tracking._interface.extension import Extension, Manager
from pte_tracking._store.dependencies import required_by
from pte_tracking.extensions._parameters import GradientCheck, dense_values, named_tensors, should_measure


class ParameterHistogram(Extension):
    """Extension that logs the distribution of each weight and gradient of models.

    The extension runs at the end of each epoch, or according to ``extend(..., trigger=...)``. For each parameter, it
    logs a histogram of the weights with the key ``prefix/layer.weight/data``, and a histogram of the gradient, if the
    parameter has a gradient, with the key ``prefix/layer.weight/grad``. Values that are not finite are excluded. Sinks
    that support histograms, such as TensorBoard, display them.

    A warning is logged if no parameter has a gradient, because the loop calls ``zero_grad()`` after the step. The
    extension reports no values. Snapshots contain no state of the extension.

    Args:
        links: Model, or several models.
        report_params: Whether to log the weights. Defaults to True.
        report_grads: Whether to log the gradients. Defaults to True.
        prefix: First part of the keys. Defaults to no prefix.

    Raises:
        TypeError: If a value in ``links`` is not a module.
        ValueError: If several models have a parameter of the same name, or one is in ``FullyShardedDataParallel``.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions, sinks
        >>> model = torch.nn.Linear(3, 2)
        >>> histogram = extensions.ParameterHistogram(model, prefix="net")
        >>> with pte.ExtensionsManager(model, 1, [histogram], iters_per_epoch=1, sinks=[]) as manager:
        ...     with manager.run_iteration():
        ...         pass
        >>> events = sinks.find_events(manager.run.directory / sinks.JOURNAL, sinks.Histogram)
        >>> [event.key for event, _ in events]
        ['net/weight/data', 'net/bias/data']
    """

    trigger = (1, "epoch")

    def __init__(
        self,
        links: nn.Module | Iterable[nn.Module],
        report_params: bool = True,
        report_grads: bool = True,
        prefix: str | None = None,
    ) -> None:
        with required_by("ParameterHistogram", "numpy", "'pte-tracking[plot]'"):
            import numpy  # noqa: F401  # otherwise the first histogram would stop the training
        self._tensors = named_tensors(links, report_params, report_grads, prefix)
        self._gradients = GradientCheck("ParameterHistogram")

    def __call__(self, manager: Manager) -> None:
        self._gradients.check(manager, self._tensors.parameters_with_grads())
        tensors = dict(self._tensors.read())
        if should_measure(manager.world, tensors.values()):
            for key, values in dense_values(tensors):
                manager.run.log_histogram(key, values, manager.iteration)
