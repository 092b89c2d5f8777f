"""Base class of evaluators."""

from __future__ import annotations

import contextlib
import logging
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pte_tracking._data.combined import dataset_hint
from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._distributed.world import SINGLE_PROCESS
from pte_tracking._distributed.wrappers import named_submodules, unwrap
from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager, TriggerLike
from pte_tracking._store.printable import describe_value
from pte_tracking.extensions._bar import IS_WIDGET, Bar, can_show
from pte_tracking.reporter import DictSummary, Reporter, report, report_result
from pte_tracking.triggers import get_trigger

_logger = logging.getLogger("pte_tracking")


class Evaluation(Extension):
    """Base class of evaluators. A subclass implements :meth:`evaluate`.

    Args:
        iterator: Data to evaluate, such as a ``DataLoader``, or a mapping of names to data. In a mapping, the data
            named ``"main"`` is evaluated.
        target: Model, or a mapping of names to models.
        name: Prefix of the model names in reported keys. None for the name of the extension in the manager.
        eval_hook: Function called with the evaluator before each evaluation.
        progress_bar: Whether to show a progress bar in a terminal or a notebook.
        trigger: When to evaluate. None for the class attribute.

    Attributes:
        eval_hook: The function passed as ``eval_hook``.

    Raises:
        TypeError: If data is not iterable or only iterable once, or if a target is not a module.
        ValueError: If a mapping of data has no entry ``"main"``.
    """

    trigger: TriggerLike = (1, "epoch")
    priority = PRIORITY_WRITER

    def __init__(
        self,
        iterator: Iterable[Any] | Mapping[str, Iterable[Any]],
        target: nn.Module | Mapping[str, nn.Module],
        *,
        name: str | None,
        eval_hook: Callable[[Any], object] | None,
        progress_bar: bool,
        trigger: TriggerLike,
    ) -> None:
        self._iterators = _check_iterators(iterator)
        self._raw_targets = _check_targets(target)
        self._targets = {name: unwrap(model) for name, model in self._raw_targets.items()}
        self.name = name
        self.eval_hook = eval_hook
        self._progress_bar = progress_bar
        if trigger is not None:
            self.trigger = get_trigger(trigger)
        self._notebook_bar: Bar | None = None
        self._world = SINGLE_PROCESS
        self._shared = SharedSummary()
        self._has_warned = False

    def get_iterator(self, name: str) -> Iterable[Any]:
        """Return the data of a name."""
        return self._iterators[name]

    def get_all_iterators(self) -> dict[str, Iterable[Any]]:
        """Return all data by name."""
        return dict(self._iterators)

    def get_target(self, name: str) -> nn.Module:
        """Return the model of a name."""
        return self._targets[name]

    def get_all_targets(self) -> dict[str, nn.Module]:
        """Return all models by name."""
        return dict(self._targets)

    def __call__(self, manager: Manager | None = None) -> dict[str, float]:
        """Evaluate the data, report the means, and return them.

        Args:
            manager: Manager of the training. None to evaluate without a manager, on the data of this rank only.

        Returns:
            The means by key.
        """
        reporter = Reporter()
        prefix = f"{self.name}/" if self.name else ""
        for name, target in self._targets.items():
            reporter.add_observer(prefix + name, self._raw_targets[name])
            reporter.add_observers(prefix, named_submodules(name, target))
        self._world = SINGLE_PROCESS if manager is None else manager.world
        with reporter, self.test_mode():
            means = self.evaluate()
        if manager is None:
            report_result(means)
        else:
            report(means)
        return means

    def means(self, summary: DictSummary) -> dict[str, float]:
        """Return the means of a summary over all ranks."""
        return self._shared.reduce(self._world, summary).compute_mean()

    def warn_without_values(self, reason: str) -> None:
        """Log a warning, once, that an evaluation reported no values.

        Args:
            reason: Sentences that tell why, and what to do.
        """
        if not self._has_warned and self._world.rank == 0:
            self._has_warned = True
            _logger.warning("Evaluator %r reported no values. %s", self.name or self.default_name, reason)

    def evaluate(self) -> dict[str, float]:
        """Evaluate the data once without reporting the result.

        Returns:
            The means of the values reported during the evaluation, by key.

        Raises:
            NotImplementedError: If the subclass does not implement this method.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement evaluate(self) -> dict. "
            "Evaluate the data in it and return the means."
        )

    @contextlib.contextmanager
    def test_mode(self) -> Iterator[None]:
        """Disable gradients and set the models to evaluation mode for the duration of a ``with`` block.

        At the end, the mode of every submodule is restored.
        """
        modes = [(module, module.training) for target in self._modules() for module in target.modules()]
        try:
            for target in self._modules():
                target.eval()
            with torch.no_grad():
                yield
        finally:
            mode_of = dict(modes)
            for target in self._modules():
                target.train(mode_of[target])  # A module may override train(), for example to merge weights.
            for module, training in modes:
                module.training = training

    def _modules(self) -> list[nn.Module]:
        return list(self._targets.values())

    def finalize(self, manager: Manager) -> None:
        if self._notebook_bar is not None:
            self._notebook_bar.close()

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Bar]:
        """Return a progress bar for one evaluation.

        In a notebook, all evaluations share one bar, because a closed bar leaves empty space.
        """
        total = operator.length_hint(self._iterators["main"]) or None
        bar = self._notebook_bar
        if bar is None:
            is_shown = self._progress_bar and self._world.rank == 0 and can_show(sys.stderr)
            name = self.name or self.default_name
            bar = Bar(desc=name, total=total, leave=IS_WIDGET, dynamic_ncols=True, disable=not is_shown)
        else:
            bar.reset(total)
        try:
            yield bar
        finally:
            if IS_WIDGET:
                self._notebook_bar = bar
            else:
                bar.close()


def check_no_class(argument: str, function: object) -> None:
    """Raise TypeError if a class was passed instead of a function or an instance.

    Args:
        argument: Name of the argument.
        function: Value of the argument.
    """
    if isinstance(function, type):
        raise TypeError(
            f"{argument}: expected a function or an instance, got the class {function.__name__}. "
            f"Write {function.__name__}()."
        )


def _check_iterators(iterator: Any) -> dict[str, Iterable[Any]]:
    iterators = dict(iterator) if isinstance(iterator, Mapping) else {"main": iterator}
    if "main" not in iterators:
        raise ValueError(
            f"iterator: expected data named 'main', got {sorted(iterators)}. To evaluate one loader, pass the loader "
            "itself. To evaluate several, create one evaluator for each."
        )
    for name, each in iterators.items():
        if not isinstance(each, Iterable) or isinstance(each, str | bytes):
            got = f"the model {type(each).__name__}" if isinstance(each, nn.Module) else repr(each)
            raise TypeError(
                f"iterator: expected an iterable such as a DataLoader as {name!r}, got {got}{dataset_hint(each)}"
            )
        if isinstance(each, Iterator):
            raise TypeError(
                f"iterator: expected a reusable iterable as {name!r}, got a {type(each).__name__}. "
                "Pass the object that created the iterator, such as the DataLoader."
            )
    return iterators


def _check_targets(target: Any) -> dict[str, nn.Module]:
    targets = dict(target) if isinstance(target, Mapping) else {"main": target}
    for name, each in targets.items():
        if not isinstance(each, nn.Module):
            raise TypeError(f"target: expected a torch.nn.Module as {name!r}, got {describe_value(each)}")
    return targets
