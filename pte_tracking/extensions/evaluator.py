"""Evaluation of models on validation data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from pte_tracking._data.batch import check_signature, example_batch, mark_last, to_device, unpack
from pte_tracking._distributed.wrappers import rank_local_model
from pte_tracking._interface.extension import TriggerLike
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking.extensions._evaluation import Evaluation, check_no_class
from pte_tracking.reporter import DictSummary, Observation, report_scope

#: Function of a batch, the output of the evaluation function for it, and whether it is the last batch.
Metric: TypeAlias = Callable[[Any, Any, bool], object]


class Evaluator(Evaluation):
    """Extension that evaluates models and reports the means over all batches.

    The extension runs at the end of each epoch, or according to ``trigger``, before the extensions that read reported
    values. It calls ``eval_func`` once for each batch: a list or tuple is unpacked into positional arguments, a
    dictionary into keyword arguments. The values reported by ``eval_func``, by the models, and by the metrics are
    averaged over the batches. Every batch has the same weight, independent of its size. To get the exact mean over the
    examples although the last batch is smaller, report pairs of the value and the batch size. During the evaluation,
    gradients are disabled and the models are in evaluation mode. Afterwards, the mode of every submodule is restored.

    A value that a model reports with itself as the observer has the key ``validation/main/key``, which consists of the
    name of the evaluator, the name of the model, and the key. Without a manager, the default name is omitted. Other
    values keep the key under which they are reported, such as ``val/loss``.

    In distributed training, each rank evaluates its part of the data, and the means are over the batches of all ranks.
    For a ``DistributedDataParallel`` model, the wrapped model is called, because the wrapper synchronizes buffers in
    every batch and blocks if a rank has fewer batches. A sharded model (``fully_shard``) requires the same number of
    batches on every rank.

    To evaluate the untrained model at step 0, too, pass ``ExtensionEntry(evaluator, call_before_training=True)``.

    An evaluator can also be called without a manager: ``evaluator()`` returns the means. Subclasses can override
    :meth:`evaluate`. Snapshots contain no state of the extension.

    Args:
        iterator: Data to evaluate, such as a ``DataLoader``, or a mapping of names to data. In a mapping, the data
            named ``"main"`` is evaluated.
        target: Model, or a mapping of names to models.
        eval_func: Function called with each batch. Defaults to the model. In a mapping, this is the model named
            ``"main"``.
        name: Prefix of the model names in reported keys. Defaults to the name of the extension in the manager, which is
            ``"validation"`` unless another name is passed to ``extend()``.
        eval_hook: Function called with the evaluator before each evaluation. Defaults to none.
        metrics: Functions called with each batch, the output of ``eval_func`` for it, and whether it is the last batch.
            A metric reports its values itself. Defaults to none.
        converter: Function called with each batch and ``device`` that returns the converted batch. Defaults to moving
            all tensors in the batch to the device.
        device: Device of the converted batches. Defaults to None, which leaves the batches where they are.
        progress_bar: Whether to show a progress bar in a terminal or a notebook. Defaults to False.
        trigger: When to evaluate. Defaults to ``(1, "epoch")``.

    Raises:
        TypeError: If an argument has the wrong type, or if ``eval_func`` does not accept the batches. If the structure
            of the batches is unknown without reading data, the second error is raised at the first batch.
        ValueError: If there is no data named ``"main"``, or if ``eval_func`` is omitted and there is no model named
            ``"main"``.

    Attributes:
        eval_func: Function that is called with each batch.
        eval_hook: Function passed as ``eval_hook``.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Identity()
        >>> def evaluate(x, target):
        ...     pte.report({"val/error": (model(x) - target).abs().mean()})
        >>> data = [(torch.tensor([1.0]), torch.tensor([2.0])), (torch.tensor([3.0]), torch.tensor([6.0]))]
        >>> evaluator = extensions.Evaluator(data, model, eval_func=evaluate)
        >>> evaluator()
        {'val/error': 2.0}

        The exact mean over the examples weighs each batch with its size. Here, 4 of 5 answers are correct:

        >>> def evaluate_answers(answers):
        ...     pte.report({"val/accuracy": (answers.mean(), len(answers))})
        >>> answers = torch.utils.data.DataLoader(torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), batch_size=2)
        >>> extensions.Evaluator(answers, model, eval_func=evaluate_answers)()
        {'val/accuracy': 0.8}

        In a manager, the evaluator runs at the end of each epoch:

        >>> with pte.ExtensionsManager(model, 1, [evaluator], iters_per_epoch=2, sinks=[]) as manager:
        ...     for batch in manager.batches(range(2)):
        ...         with manager.run_iteration():
        ...             pass
        >>> dict(manager.observation)
        {'val/error': 2.0}
    """

    default_name = "validation"

    @refuse_unknown()
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
        trigger: TriggerLike = None,
    ) -> None:
        super().__init__(iterator, target, name=name, eval_hook=eval_hook, progress_bar=progress_bar, trigger=trigger)
        self.eval_func = self._resolve_eval_func(eval_func)
        self._is_eval_func_given = eval_func is not None
        self._metrics: list[Metric] = []
        if not isinstance(metrics, Iterable):
            raise TypeError(f"metrics: expected a list of functions (batch, output, is_last_batch), got {metrics!r}")
        for metric in metrics:
            self.add_metric(metric)
        self._converter = converter or to_device
        self._device = device
        batch = example_batch(self._iterators["main"])
        if converter is None and batch is not None:
            check_signature(self.eval_func, batch, "eval_func", is_given=self._is_eval_func_given)

    def add_metric(self, metric_fn: Metric) -> None:
        """Add a metric.

        Args:
            metric_fn: Function of the batch, the output of ``eval_func``, and whether the batch is the last one.

        Raises:
            TypeError: If ``metric_fn`` is not callable, or is a class.
        """
        check_no_class("metrics", metric_fn)
        if not callable(metric_fn):
            raise TypeError(f"metrics: expected functions (batch, output, is_last_batch), got {metric_fn!r}")
        self._metrics.append(metric_fn)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the data once without reporting the result. A subclass may override this method.

        Returns:
            The means of the values reported during the evaluation, by key.
        """
        summary, batches = DictSummary(), 0
        with self.test_mode(), self._bar() as bar:
            if self.eval_hook:
                self.eval_hook(self)
            for index, (batch, is_last) in enumerate(mark_last(self._iterators["main"])):
                converted = self._converter(batch, self._device)
                if index == 0:
                    check_signature(self.eval_func, converted, "eval_func", is_given=self._is_eval_func_given)
                summary.add(self._observe(converted, is_last))
                batches += 1
                bar.update()
        if summary.is_empty:
            self.warn_without_values(
                "Values that eval_func returns are not recorded. Call pte_tracking.report({...}) in it."
                if batches
                else "The data has no batches."
            )
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
            check_no_class("eval_func", eval_func)
            if not callable(eval_func):
                raise TypeError(f"eval_func: expected a function to be called with each batch, got {eval_func!r}")
            return rank_local_model(eval_func)
        if "main" not in self._targets:
            raise ValueError(
                f"eval_func: required unless a target is named 'main', got targets {sorted(self._targets)}"
            )
        return rank_local_model(self._raw_targets["main"])

    def _modules(self) -> list[nn.Module]:
        modules = super()._modules()
        return (
            [*modules, self.eval_func]
            if isinstance(self.eval_func, nn.Module) and self.eval_func not in modules
            else modules
        )
