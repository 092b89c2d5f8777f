"""Evaluation by an engine of Ignite."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pte_tracking.extensions._evaluation import Evaluation
from pte_tracking.reporter import DictSummary, Observation, report_scope

if TYPE_CHECKING:
    from ignite.engine import Engine

_log = logging.getLogger("pte_tracking")


class IgniteEvaluator(Evaluation):
    """Runs an engine of Ignite over the data and reports its metrics.

    It runs at the end of each epoch, before the extensions that read reported values. The engine's metrics
    are reported as ``val/key``, or under another name if it has one; a metric that is no single number is
    left out, which is logged once. What is reported while the engine runs is averaged over its iterations and
    reported, too: by a model with itself as the observer as ``val/main/key``, else under the key it had.
    Around all this there are no gradients and the models are in test mode; afterwards every part of them is
    in the mode that it was in. Ignite's own ``create_supervised_evaluator`` would leave them in test mode.

    Args:
        evaluator: The engine, as made by ``create_supervised_evaluator(model, metrics={...})``.
        iterator: The data, such as a ``DataLoader``, or several by name; ``"main"`` is the one that is
            evaluated.
        target: The model, or several by name.
        name: What it is called.
        eval_hook: Called with the evaluator before each evaluation.
        progress_bar: Whether to show a progress bar, in a terminal or a notebook.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: No data is called ``"main"``.

    Attributes:
        evaluator: The engine.
        eval_hook: The function given.

    State in snapshots: none.
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
    ) -> None:
        from ignite.engine import Engine

        if not isinstance(evaluator, Engine):
            raise TypeError(f"evaluator: expected an ignite.engine.Engine, got {evaluator!r}; the data comes second")
        super().__init__(iterator, target, name=name, eval_hook=eval_hook, progress_bar=progress_bar)
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
            # Registered anew each time, so that it comes after the handlers that the user has added since.
            with self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, finish_iteration):
                self.evaluator.state.max_epochs = None  # begin anew, where the last run has failed half-way, too
                self.evaluator.run(self._iterators["main"])
            # What handlers of the end of the run have reported.
            summary.add(observation)
        # Ignite's metrics are those of all ranks already, where it knows of several.
        metrics = self._read_metrics()
        reported = DictSummary()
        reported.add(metrics)
        return {**self.means(summary), **reported.compute_mean()}

    def _read_metrics(self) -> dict[str, Any]:
        numbers = {}
        for key, value in self.evaluator.state.metrics.items():
            if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1):
                numbers[f"{self.name or self.default_name}/{key}"] = value
            elif key not in self._skipped_metrics:
                self._skipped_metrics.add(key)
                if self._world.rank == 0:
                    _log.warning(
                        "IgniteEvaluator: the metric %r is not reported, for it is no single number: %r", key, value
                    )
        return numbers
