"""Evaluation of models on other data than they are trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from pte_tracking._data.batch import check_signature, example_batch, mark_last, to_device, unpack
from pte_tracking._distributed.wrappers import rank_local_model
from pte_tracking.extensions._evaluation import Evaluation
from pte_tracking.reporter import DictSummary, Observation, report_scope

#: Called with a batch, what the evaluation function returned for it, and whether it is the last one.
Metric: TypeAlias = Callable[[Any, Any, bool], object]


class Evaluator(Evaluation):
    """Evaluates models and reports the means over all batches.

    It runs at the end of each epoch, before the extensions that read reported values. ``eval_func`` is called
    once for each batch: with the parts of a list or tuple as arguments, with those of a dictionary by name,
    with anything else as it is. What it, the models and the metrics report is averaged over the batches, each
    batch counting the same: the average of averages. Around all this there are no gradients and the models
    are in test mode; afterwards every part of them is in the mode that it was in.

    Under ``torch.distributed`` each rank evaluates its own part of the data, and the means are over the batches
    of all ranks. Of a ``DistributedDataParallel`` the model within is evaluated: the wrapper would exchange
    buffers at each batch, and wait for ever for a rank that has fewer. A model in shards (``fully_shard``) needs
    as many batches on each rank.

    A value that a model reports with itself as the observer goes by ``validation/main/key``: the evaluator's
    name, the model's name and the key. The name is by default ``"validation"`` in a manager, and left out
    without one. Other values keep the key that they are reported with, such as ``val/loss``.

    Args:
        iterator: The data, such as a ``DataLoader``, or several by name; ``"main"`` is the one that is
            evaluated.
        target: The model, or several by name.
        eval_func: Called with each batch; by default the model (the one called ``"main"`` if there are
            several).
        name: What it is called.
        eval_hook: Called with the evaluator before each evaluation.
        metrics: Functions called with each batch, what ``eval_func`` returned for it, and whether it is the
            last one; they report values themselves.
        converter: Called with each batch and ``device``; by default moves the batch there.
        device: Where the batches are needed.
        progress_bar: Whether to show a progress bar, in a terminal or a notebook.

    Raises:
        TypeError: An argument is of the wrong type, or ``eval_func`` cannot be called with the batches; where
            their form can only be known from the data, this is found at the first batch.
        ValueError: ``"main"`` is missing.

    Attributes:
        eval_func: The function that is called with each batch.
        eval_hook: The function given.

    State in snapshots: none.
    """

    default_name = "validation"

    def __init__(
        self,
        iterator: Iterable[Any] | Mapping[str, Iterable[Any]],
        target: nn.Module | Mapping[str, nn.Module],
        eval_func: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        eval_hook: Callable[[Evaluator], object] | None = None,
        metrics: Iterable[Metric] = (),
        converter: Callable[[Any, Any], Any] | None = None,
        device: torch.device | str | int | None = None,
        progress_bar: bool = False,
    ) -> None:
        super().__init__(iterator, target, name=name, eval_hook=eval_hook, progress_bar=progress_bar)
        self.eval_func = self._resolve_eval_func(eval_func)
        self._metrics: list[Metric] = []
        for metric in metrics:
            self.add_metric(metric)
        self._converter = converter or to_device
        self._device = device
        batch = example_batch(self._iterators["main"])
        if converter is None and batch is not None:
            check_signature(self.eval_func, batch, "eval_func")

    def add_metric(self, metric_fn: Metric) -> None:
        """Adds a metric."""
        if not callable(metric_fn):
            raise TypeError(f"metrics: expected functions (batch, output, is_last_batch), got {metric_fn!r}")
        self._metrics.append(metric_fn)

    def evaluate(self) -> dict[str, float]:
        summary = DictSummary()
        with self.test_mode(), self._bar() as bar:
            if self.eval_hook:
                self.eval_hook(self)
            for index, (batch, is_last) in enumerate(mark_last(self._iterators["main"])):
                converted = self._converter(batch, self._device)
                if index == 0:
                    check_signature(self.eval_func, converted, "eval_func")
                summary.add(self._observe(converted, is_last))
                bar.update()
        return self.means(summary)

    def _observe(self, batch: Any, is_last: bool) -> Observation:
        observation: Observation = {}
        with report_scope(observation):
            args, kwargs = unpack(batch)
            output = self.eval_func(*args, **kwargs)
            for metric in self._metrics:
                metric(batch, output, is_last)
        return observation

    def _resolve_eval_func(self, eval_func: Callable[..., Any] | None) -> Callable[..., Any]:
        if eval_func is not None:
            if not callable(eval_func):
                raise TypeError(f"eval_func: expected a function to be called with each batch, got {eval_func!r}")
            return rank_local_model(eval_func)
        if "main" not in self._targets:
            raise ValueError(f"eval_func: needed unless a target is called 'main'; got targets {sorted(self._targets)}")
        return rank_local_model(self._raw_targets["main"])

    def _modules(self) -> list[nn.Module]:
        modules = super()._modules()
        return (
            [*modules, self.eval_func]
            if isinstance(self.eval_func, nn.Module) and self.eval_func not in modules
            else modules
        )
