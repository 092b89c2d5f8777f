"""Flags of models that no state contains: ``requires_grad`` of parameters, and the mode of modules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypedDict

from pte_tracking._snapshots.parameter_names import ParameterNames

_logger = logging.getLogger("pte_tracking")
_MAX_NAMES = 5


class FlagState(TypedDict):
    """Names of parameters or modules whose flag is not set.

    Attributes:
        given: Those for which it was cleared when the manager was constructed.
        current: Those for which it is cleared now.
    """

    given: list[str]
    current: list[str]


class NamedFlags:
    """Flags by name, which a training may change, and which a resume changes again.

    If the script itself sets other flags than before when it constructs the manager, it decides about these, which is
    logged. Later changes may belong to the training.

    Args:
        label: The flags, as named in the message.
        attribute: Name of the attribute.
        find: Returns the current parameters or modules by name.
    """

    def __init__(self, label: str, attribute: str, find: Callable[[], Iterable[tuple[str, object]]]) -> None:
        self._label = label
        self._attribute = attribute
        self._find = find
        self._given = self._cleared()

    def state_dict(self) -> FlagState:
        """Return the names whose flag is not set."""
        return FlagState(given=self._given, current=self._cleared())

    def load_state_dict(self, state: FlagState, rank: int) -> None:
        """Set and clear flags as they were.

        Args:
            state: The saved state.
            rank: Rank of this process. Only rank 0 logs.
        """
        changed = set(self._given) ^ set(state["given"])
        cleared = set(state["current"])
        for name, target in self._find():
            if name not in changed and getattr(target, self._attribute) == (name in cleared):
                setattr(target, self._attribute, name not in cleared)
        differing = sorted(name for name in changed if (name in cleared) != (name in self._given))
        if differing and rank == 0:
            self._log(differing, set(self._given))

    def _cleared(self) -> list[str]:
        return [name for name, target in self._find() if not getattr(target, self._attribute)]

    def _log(self, names: list[str], given: set[str]) -> None:
        texts = [f"{name!r} is {name not in given}" for name in names[:_MAX_NAMES]]
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        _logger.warning(
            "resume: the script sets %s differently than at the first start, and its values are used: %s%s.",
            self._label,
            ", ".join(texts),
            more,
        )


def frozen_parameters(names: ParameterNames) -> NamedFlags:
    """Return the flags ``requires_grad`` of parameters.

    Args:
        names: Names of the parameters.
    """
    return NamedFlags("requires_grad", "requires_grad", lambda: names.parameters().items())


def module_modes(names: ParameterNames, models: Iterable[str]) -> NamedFlags:
    """Return the flags ``training`` of modules, which ``train()`` and ``eval()`` set.

    Args:
        names: Names of the modules.
        models: Names of the models whose modules have these flags.
    """
    trees = {name: tree for name, tree in names.trees.items() if name in set(models)}
    return NamedFlags(
        "the training mode of modules",
        "training",
        lambda: ((f"{name}/{path}", part) for name, tree in trees.items() for path, part in tree.modules.items()),
    )
