"""Models, optimizers, and other objects of a training, whose states are restored all or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import nn, optim

from pte_tracking._engine.differences import AllowedDifferences, describe_part, part_name
from pte_tracking._snapshots.compatibility import check_compatible
from pte_tracking._snapshots.earlier_state import load_reversibly, loads_by_copy


class StateObject(Protocol):
    """Object whose state is part of snapshots, such as a scheduler, a GradScaler, or an average of weights."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class TrainingParts:
    """Objects with a state by kind and name.

    A state is restored in three steps, so that a failure leaves all objects as they were: :meth:`check`,
    :meth:`load_reversible`, and :meth:`load_checked`, which does not fail.

    Args:
        models: Models by name.
        optimizers: Optimizers by name.
        state_objects: Other objects with a state by name.

    Attributes:
        by_kind: The objects by name, by kind: ``"models"``, ``"optimizers"``, ``"state_objects"``.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        optimizers: Mapping[str, optim.Optimizer],
        state_objects: Mapping[str, StateObject],
    ) -> None:
        self._models, self._optimizers = models, optimizers
        self.by_kind: dict[str, Mapping[str, Any]] = {
            "models": models,
            "optimizers": optimizers,
            "state_objects": state_objects,
        }

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the state of each object."""
        return {
            kind: {name: item.state_dict() for name, item in objects.items()} for kind, objects in self.by_kind.items()
        }

    def check(self, state: Mapping[str, Any], allowed: AllowedDifferences) -> None:
        """Check that a state can be loaded, before anything is restored.

        Args:
            state: The state.
            allowed: Parts that may differ. Those that do are skipped.

        Raises:
            ValueError: If the names or shapes of tensors differ.
        """
        models = {name: model for name, model in self._models.items() if isinstance(model, nn.Module)}
        parts: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
            *((f"models/{name}", {name: model}, {}) for name, model in models.items()),
            *((f"optimizers/{name}", {}, {name: optimizer}) for name, optimizer in self._optimizers.items()),
        ]
        for label, model, optimizer in parts:
            if label in allowed and not allowed.is_skipped(label):
                try:
                    check_compatible(model, optimizer, state)
                except ValueError as error:
                    allowed.skip(label, error)
        check_compatible(
            {name: model for name, model in models.items() if not allowed.is_skipped(f"models/{name}")},
            {name: item for name, item in self._optimizers.items() if not allowed.is_skipped(f"optimizers/{name}")},
            state,
        )

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
        for kind in ("state_objects", "optimizers", "models"):
            for name, item in self.by_kind[kind].items():
                # The construction reported an optimizer without this method.
                if hasattr(item, "load_state_dict") and not _is_loaded_last(kind, item):
                    load_allowed(f"{kind}/{name}", item, state[kind].get(name), undo, allowed)

    def load_checked(self, state: Mapping[str, Any], allowed: AllowedDifferences) -> None:
        """Restore the models whose state was checked, without a copy of the earlier one.

        Args:
            state: The state.
            allowed: Parts that are not restored.
        """
        for kind, name, item in self._items():
            if _is_loaded_last(kind, item) and not allowed.is_skipped(f"{kind}/{name}"):
                item.load_state_dict(state[kind][name])

    def _items(self) -> Iterator[tuple[str, str, Any]]:
        return ((kind, name, item) for kind, objects in self.by_kind.items() for name, item in objects.items())


def load_allowed(label: str, target: Any, saved: Any, undo: contextlib.ExitStack, allowed: AllowedDifferences) -> None:
    """Restore the state of an object that may refuse it, unless the object starts as constructed.

    Args:
        label: Label of the object.
        target: The object.
        saved: The state.
        undo: Receives a function that returns the object to its earlier state.
        allowed: Parts that may refuse their state, and those that are not restored.

    Raises:
        ValueError: If the object refuses its state, and is not allowed to.
    """
    if allowed.is_skipped(label):
        return
    if label not in allowed:
        load_reversibly(describe_part(label), part_name(label), target, saved, undo)
        return
    with contextlib.ExitStack() as own_undo:
        try:
            load_reversibly(describe_part(label), part_name(label), target, saved, own_undo)
        except ValueError as error:
            allowed.skip(label, error.__cause__)
        else:
            undo.push(own_undo.pop_all())


def _is_loaded_last(kind: str, item: object) -> bool:
    return kind == "models" and loads_by_copy(item)
