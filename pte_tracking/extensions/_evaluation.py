"""What all evaluators share: models in test mode, and their values reported under a name."""

from __future__ import annotations

import contextlib
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._distributed.world import SINGLE_PROCESS
from pte_tracking._distributed.wrappers import named_submodules, unwrap
from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager
from pte_tracking.extensions._bar import IS_WIDGET, Bar, can_show
from pte_tracking.reporter import DictSummary, Reporter, report


class Evaluation(Extension):
    """Base class of evaluators: a subclass overrides :meth:`evaluate`.

    Args:
        iterator: The data, such as a ``DataLoader``, or several by name; ``"main"`` is the one that is
            evaluated.
        target: The model, or several by name.
        name: Goes before the names of the models in reported keys; by default the name in the manager, if
            there is one.
        eval_hook: Called with the evaluator before each evaluation.
        progress_bar: Whether to show a progress bar, in a terminal or a notebook.

    Attributes:
        eval_hook: The function given.
    """

    trigger = (1, "epoch")
    priority = PRIORITY_WRITER
    needs_model_state = True

    def __init__(
        self,
        iterator: Iterable[Any] | Mapping[str, Iterable[Any]],
        target: nn.Module | Mapping[str, nn.Module],
        *,
        name: str | None,
        eval_hook: Callable[[Any], object] | None,
        progress_bar: bool,
    ) -> None:
        self._iterators = _check_iterators(iterator)
        self._raw_targets = _check_targets(target)
        self._targets = {name: unwrap(model) for name, model in self._raw_targets.items()}
        self.name = name
        self.eval_hook = eval_hook
        self._progress_bar = progress_bar
        self._notebook_bar: Bar | None = None
        self._world = SINGLE_PROCESS
        self._shared = SharedSummary()

    def get_iterator(self, name: str) -> Iterable[Any]:
        """The data of that name."""
        return self._iterators[name]

    def get_all_iterators(self) -> dict[str, Iterable[Any]]:
        """All data by name."""
        return dict(self._iterators)

    def get_target(self, name: str) -> nn.Module:
        """The model of that name."""
        return self._targets[name]

    def get_all_targets(self) -> dict[str, nn.Module]:
        """All models by name."""
        return dict(self._targets)

    def __call__(self, manager: Manager | None = None) -> dict[str, float]:
        """Evaluates, reports the means and returns them. Works without a manager, too: then over this rank's data."""
        reporter = Reporter()
        prefix = f"{self.name}/" if self.name else ""
        for name, target in self._targets.items():
            reporter.add_observer(prefix + name, self._raw_targets[name])
            reporter.add_observers(prefix, named_submodules(name, target))
        self._world = SINGLE_PROCESS if manager is None else manager.world
        with reporter, self.test_mode():
            means = self.evaluate()
        report(means)
        return means

    def means(self, summary: DictSummary) -> dict[str, float]:
        """The means of a summary, those of all ranks taken together."""
        return self._shared.reduce(self._world, summary).compute_mean()

    def evaluate(self) -> dict[str, float]:
        """One pass over the data; returns the means of what was reported, and reports nothing itself."""
        raise NotImplementedError(
            f"{type(self).__name__} has no evaluate(self) -> dict; an evaluator does its work there"
        )

    @contextlib.contextmanager
    def test_mode(self) -> Iterator[None]:
        """A ``with`` block without gradients and in test mode; afterwards each part of the models is as it was."""
        modes = [(module, module.training) for target in self._modules() for module in target.modules()]
        try:
            for target in self._modules():
                target.eval()
            with torch.no_grad():
                yield
        finally:
            mode_of = dict(modes)
            for target in self._modules():
                target.train(mode_of[target])  # modules may do more than set the flag, such as merge weights
            for module, training in modes:
                module.training = training

    def _modules(self) -> list[nn.Module]:
        return list(self._targets.values())

    def finalize(self, manager: Manager) -> None:
        if self._notebook_bar is not None:
            self._notebook_bar.close()

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Bar]:
        """A bar for one evaluation; in a notebook, where each would leave its place behind, the same one for all."""
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


def _check_iterators(iterator: Any) -> dict[str, Iterable[Any]]:
    iterators = dict(iterator) if isinstance(iterator, Mapping) else {"main": iterator}
    if "main" not in iterators:
        raise ValueError(f"iterator: the data to evaluate must be called 'main'; got {sorted(iterators)}")
    for name, each in iterators.items():
        if not isinstance(each, Iterable):
            raise TypeError(
                f"iterator: expected something to loop over, such as a DataLoader, as {name!r}, got {each!r}"
            )
        if isinstance(each, Iterator):
            raise TypeError(
                f"iterator: {name!r} is a {type(each).__name__}, which can be looped over only once; give what it was "
                "made from, such as the DataLoader"
            )
    return iterators


def _check_targets(target: Any) -> dict[str, nn.Module]:
    targets = dict(target) if isinstance(target, Mapping) else {"main": target}
    for name, each in targets.items():
        if not isinstance(each, nn.Module):
            raise TypeError(
                f"target: expected a torch.nn.Module as {name!r}, got {each!r} of type {type(each).__name__}"
            )
    return targets
