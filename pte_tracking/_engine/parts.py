"""Models, optimizers, and other objects of a training, whose states are restored all or none."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import nn, optim

from pte_tracking._engine.differences import AllowedDifferences, describe_part
from pte_tracking._snapshots.compatibility import raise_differences
from pte_tracking._snapshots.earlier_state import load_reversibly, loads_by_copy
from pte_tracking._snapshots.inner_optimizers import torch_optimizers
from pte_tracking._snapshots.module_state import compare_module
from pte_tracking._snapshots.module_tree import ModuleTree
from pte_tracking._snapshots.object_state import load_object, save_object
from pte_tracking._snapshots.optimizer_state import OptimizerStates, SavedOptimizer
from pte_tracking._snapshots.save_failure import named_failure
from pte_tracking._snapshots.scheduler_groups import arrange_scheduler

_Saved = TypeVar("_Saved")


class StateObject(Protocol):
    """Object whose state is part of snapshots, such as a scheduler, a GradScaler, or an average of weights."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class NumpyGenerator(Protocol):
    """Random generator of NumPy, which need not be installed."""

    @property
    def bit_generator(self) -> Any: ...


#: Object that a front end accepts in ``state_objects``.
StateObjectLike: TypeAlias = StateObject | torch.Generator | random.Random | NumpyGenerator | dict[Any, Any]


class TrainingParts:
    """Objects with a state by kind and name.

    A state is restored in three steps, so that a failure leaves all objects as they were: :meth:`check`,
    :meth:`load_reversible`, and :meth:`load_checked`, which does not fail.

    Args:
        models: Models by name.
        optimizers: Optimizers by name.
        state_objects: Other objects with a state by name.
        users: Returns objects by name that may have an optimizer, such as schedulers. It is part of the state even if
            ``optimizers`` does not contain it. Defaults to none.

    Attributes:
        models: Models by name.
        states: Names of the parameters, and states of the optimizers.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, optim.Optimizer],
        state_objects: Mapping[str, StateObject],
        users: Callable[[], Mapping[str, object]] = dict,
    ) -> None:
        self.models, self._optimizers, self._state_objects = models, optimizers, state_objects
        self._users = users
        # The modules among the other objects, such as a loss with weights, have parameters, too.
        self.states = OptimizerStates({**state_objects, **models})

    @property
    def model_trees(self) -> dict[str, ModuleTree]:
        """Modules and parameters of each model by name."""
        return {name: tree for name, tree in self.states.names.trees.items() if name in self.models}

    @property
    def by_kind(self) -> dict[str, Mapping[str, Any]]:
        """The objects by name, by kind: ``"models"``, ``"optimizers"``, ``"state_objects"``."""
        return {"models": self.models, "optimizers": self.optimizers, "state_objects": self._state_objects}

    @property
    def users(self) -> Mapping[str, object]:
        """Objects by name that may have an optimizer, such as schedulers: extensions and state objects."""
        return self._users()

    @property
    def optimizers(self) -> dict[str, Any]:
        """All optimizers by name, with those that only extensions or state objects refer to."""
        used = {f"{name}.optimizer": getattr(user, "optimizer", None) for name, user in self._users().items()}
        return {**self._optimizers, **dict(_additional(used, self._optimizers.values()))}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the state of each object, and under ``"parameters"`` details of the optimizers.

        Raises:
            RuntimeError: If an object fails to return its state.
        """
        self.states.names.refresh()
        optimizers = _save_all("optimizers", self.optimizers, lambda _, item: self.states.save(item))
        trees = self.model_trees
        return {
            "models": _save_all("models", self.models, lambda name, item: save_object(item, trees.get(name))),
            "optimizers": {name: saved.state for name, saved in optimizers.items()},
            "state_objects": _save_all("state_objects", self._state_objects, lambda _, item: save_object(item)),
            "parameters": {"optimizers": {name: saved.details() for name, saved in optimizers.items()}},
        }

    def check(self, state: Mapping[str, Any], allowed: AllowedDifferences) -> None:
        """Check that a state can be loaded, before anything is restored.

        Args:
            state: The state.
            allowed: Parts that may differ. Those that do are skipped.

        Raises:
            ValueError: If the names or shapes of tensors differ.
        """
        refused: dict[str, list[str]] = {}
        for label, differences in self._differences(state, allowed):
            if differences and label in allowed:
                allowed.skip(label, f"{'; '.join(differences)}.")
            elif differences:
                refused[label] = differences
        raise_differences([text for texts in refused.values() for text in texts], allowed.remedy(refused))

    def arrange(self, state: Mapping[str, Any], allowed: AllowedDifferences) -> dict[str, Any]:
        """Return a checked state with the parameters of each optimizer in their current order.

        Args:
            state: The state.
            allowed: Parts that are not restored.
        """
        arranged = {
            name: self.states.arrange(item, _saved_optimizer(name, state))
            for name, item in self.optimizers.items()
            if not allowed.is_skipped(f"optimizers/{name}")
        }
        details = {name: saved.details() for name, saved in arranged.items()}
        return {
            **state,
            "optimizers": {name: saved.state for name, saved in arranged.items()},
            "parameters": {**state["parameters"], "optimizers": details},
        }

    def arrange_users(
        self, state: Mapping[str, Any], saved: Mapping[str, Any], allowed: AllowedDifferences
    ) -> dict[str, Any]:
        """Return a state in which schedulers have the values for the parameter groups in their current order.

        Args:
            state: The state, with the names of this training.
            saved: The state before :meth:`arrange`.
            allowed: Parts that are not restored.
        """
        orders = {
            id(item): self.states.group_order(item, _saved_optimizer(name, saved))
            for name, item in self.optimizers.items()
            if name in saved["optimizers"] and not allowed.is_skipped(f"optimizers/{name}")
        }
        arranged = dict(state)
        for name, user in {**self._users(), **self._state_objects}.items():
            order = orders.get(id(getattr(user, "optimizer", None)), [])
            if order == sorted(order):
                continue
            for kind in ("extensions", "state_objects"):
                if name in arranged.get(kind, ()):
                    arranged[kind] = {**arranged[kind], name: arrange_scheduler(arranged[kind][name], order)}
        return arranged

    def load_reversible(
        self, state: Mapping[str, Any], undo: contextlib.ExitStack, allowed: AllowedDifferences
    ) -> None:
        """Restore the objects that may refuse their state. Other objects first: their failure costs the least.

        Args:
            state: The state.
            undo: Receives functions that return the objects to their earlier states.
            allowed: Parts that may refuse their state, and those that are not restored.

        Raises:
            ValueError: If an object refuses its state.
        """
        # Models before optimizers: a lazy module creates its parameters when it is loaded.
        for kind in ("state_objects", "models"):
            for name, item in self.by_kind[kind].items():
                if not _is_loaded_last(kind, item):
                    load_allowed(f"{kind}/{name}", item, state[kind].get(name), undo, allowed, load_object)
        for name, item in self.optimizers.items():
            # The construction reported an optimizer without this method.
            if name in state["optimizers"] and hasattr(item, "load_state_dict"):
                saved = _saved_optimizer(name, state)
                load_allowed(f"optimizers/{name}", item, saved, undo, allowed, self.states.load)

    def load_checked(self, state: Mapping[str, Any], allowed: AllowedDifferences) -> None:
        """Restore the models whose state was checked, without a copy of the earlier one.

        Args:
            state: The state.
            allowed: Parts that are not restored.
        """
        for kind, name, item in self._items():
            if _is_loaded_last(kind, item) and not allowed.is_skipped(f"{kind}/{name}"):
                load_object(item, state[kind][name])

    def _differences(self, state: Mapping[str, Any], allowed: AllowedDifferences) -> Iterator[tuple[str, list[str]]]:
        """Yield the label and the differences of each part that is not skipped."""
        for kind, name, item in self._items():
            label = f"{kind}/{name}"
            if allowed.is_skipped(label):
                continue
            if kind == "optimizers":
                yield label, [*self.states.compare(label, item, _saved_optimizer(name, state))]
            elif isinstance(item, nn.Module):
                yield label, [*compare_module(label, item, state[kind][name])]

    def _items(self) -> Iterator[tuple[str, str, Any]]:
        return ((kind, name, item) for kind, objects in self.by_kind.items() for name, item in objects.items())


def load_allowed(
    label: str,
    target: Any,
    saved: Any,
    undo: contextlib.ExitStack,
    allowed: AllowedDifferences,
    load: Callable[[Any, Any], object] = load_object,
) -> None:
    """Restore the state of an object that may refuse it, unless the object starts as constructed.

    Args:
        label: Label of the object.
        target: The object.
        saved: The state.
        undo: Receives a function that returns the object to its earlier state.
        allowed: Parts that may refuse their state, and those that are not restored.
        load: Restores the state. Defaults to the method of the object.

    Raises:
        ValueError: If the object refuses its state, and is not allowed to.
    """
    if allowed.is_skipped(label):
        return
    if label not in allowed:
        load_reversibly(describe_part(label), allowed.short_remedy(label), target, saved, undo, load)
        return
    with contextlib.ExitStack() as own_undo:
        try:
            load_reversibly(describe_part(label), allowed.short_remedy(label), target, saved, own_undo, load)
        except ValueError as error:
            allowed.skip(label, error.__cause__)
        else:
            undo.push(own_undo.pop_all())


def _save_all(kind: str, items: Mapping[str, Any], save: Callable[[str, Any], _Saved]) -> dict[str, _Saved]:
    """Return the states of the objects of a kind by name. A failure names the object."""
    states = {}
    for name, item in items.items():
        with named_failure(describe_part(f"{kind}/{name}"), item):
            states[name] = save(name, item)
    return states


def _is_loaded_last(kind: str, item: object) -> bool:
    return kind == "models" and loads_by_copy(item)


def _saved_optimizer(name: str, state: Mapping[str, Any]) -> SavedOptimizer:
    return SavedOptimizer(state["optimizers"][name], **state["parameters"]["optimizers"][name])


def _additional(used: Mapping[str, object], given: Iterable[object]) -> Iterator[tuple[str, object]]:
    seen = {id(item) for optimizer in given for item in (optimizer, *torch_optimizers(optimizer).values())}
    for name, optimizer in used.items():
        # Some objects, such as metrics of Ignite, return a function for any attribute.
        if torch_optimizers(optimizer) and hasattr(optimizer, "load_state_dict") and id(optimizer) not in seen:
            seen.add(id(optimizer))
            yield name, optimizer
