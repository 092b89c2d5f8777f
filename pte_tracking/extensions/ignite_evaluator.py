"""Evaluation with an Ignite engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pte_tracking._interface.extension import TriggerLike
from pte_tracking._store.dependencies import required_by
from pte_tracking.extensions._evaluation import Evaluation
from pte_tracking.reporter import DictSummary, Observation, report_scope

if TYPE_CHECKING:
    from ignite.engine import Engine

_logger = logging.getLogger("pte_tracking")


class IgniteEvaluator(Evaluation):
    """Extension that runs an Ignite engine over data and reports its metrics.

    The extension runs at the end of each epoch, before the extensions that read reported values. Metrics of the engine
    are reported as ``val/key``, or with the prefix ``name``. A metric that is not a single number is skipped, with one
    log message. Values reported while the engine runs are averaged over its iterations and reported as well. A value
    reported by a model with itself as the observer has the key ``val/main/key``. Other values keep their key.

    During the evaluation, gradients are disabled and the models are in evaluation mode. Afterwards, the mode of every
    submodule is restored, which an engine created by ``create_supervised_evaluator`` does not do. Snapshots contain no
    state of the extension.

    Args:
        evaluator: Engine, such as ``create_supervised_evaluator(model, metrics={...})``.
        iterator: Data to evaluate, such as a ``DataLoader``, or a mapping of names to data. In a mapping, the data
            named ``"main"`` is evaluated.
        target: Model, or a mapping of names to models.
        name: Prefix of the reported keys. Defaults to the name of the extension in the manager, which is ``"val"``
            unless another name is passed to ``extend()``.
        eval_hook: Function called with the evaluator before each evaluation. Defaults to none.
        progress_bar: Whether to show a progress bar in a terminal or a notebook. Defaults to False.
        trigger: When to evaluate. Defaults to ``(1, "epoch")``.

    Raises:
        ImportError: If pytorch-ignite is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If there is no data named ``"main"``.

    Attributes:
        evaluator: The engine.
        eval_hook: Function passed as ``eval_hook``.

    Example:
        >>> import torch
        >>> from ignite.engine import create_supervised_evaluator
        >>> from ignite.metrics import MeanAbsoluteError
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Identity()
        >>> engine = create_supervised_evaluator(model, metrics={"error": MeanAbsoluteError()})
        >>> data = [(torch.tensor([[1.0]]), torch.tensor([[2.0]]))]
        >>> evaluator = extensions.IgniteEvaluator(engine, data, model)
        >>> with pte.ExtensionsManager(model, 1, [evaluator], iters_per_epoch=1, sinks=[]) as manager:
        ...     with manager.run_iteration():
        ...         pass
        >>> dict(manager.observation)
        {'val/error': 1.0}
    """

    default_name = "val"

    def __init__(
        self,
        evaluator: Engine,
        iterator: Iterable[Any] | Mapping[str, Iterable[Any]],
        target: nn.Module | Mapping[str, nn.Module],
        *,
        name: str | None = None,
        eval_hook: Callable[[IgniteEvaluator], object] | None = None,
        progress_bar: bool = False,
        trigger: TriggerLike = None,
    ) -> None:
        with required_by("IgniteEvaluator", "pytorch-ignite", "'pte-tracking[ignite]'"):
            from ignite.engine import Engine

        if not isinstance(evaluator, Engine):
            raise TypeError(
                f"evaluator: expected an ignite.engine.Engine, got {evaluator!r}. "
                "Pass the engine first and the data second."
            )
        super().__init__(iterator, target, name=name, eval_hook=eval_hook, progress_bar=progress_bar, trigger=trigger)
        self.evaluator = evaluator
        self._skipped_metrics: set[str] = set()

    def evaluate(self) -> dict[str, float]:
        from ignite.engine import Events

        summary = DictSummary()
        observation: Observation = {}

        def finish_iteration() -> None:
            summary.add(observation)
            observation.clear()
            bar.update()

        with self.test_mode(), report_scope(observation), self._bar() as bar:
            if self.eval_hook:
                self.eval_hook(self)
            # Registered for each evaluation, so that it runs after all handlers of the user.
            with self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, finish_iteration):
                self.evaluator.state.max_epochs = None  # Without this, the engine would resume a run that failed.
                self.evaluator.run(self._iterators["main"])
            # Add the values reported by handlers at the end of the run.
            summary.add(observation)
        # Ignite reduces its metrics over the ranks itself.
        metrics = self._read_metrics()
        reported = DictSummary()
        reported.add(metrics)
        if summary.is_empty and reported.is_empty:
            self.warn_without_values("The engine has no metrics. Attach a metric, or call pte_tracking.report({...}).")
        return {**self.means(summary), **reported.compute_mean()}

    def _read_metrics(self) -> dict[str, Any]:
        numbers = {}
        for key, value in self.evaluator.state.metrics.items():
            if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1):
                numbers[f"{self.name or self.default_name}/{key}"] = value
            elif key not in self._skipped_metrics:
                self._skipped_metrics.add(key)
                if self._world.rank == 0:
                    _logger.warning(
                        "IgniteEvaluator: metric %r is not reported, because its value is not a number: %r", key, value
                    )
        return numbers
