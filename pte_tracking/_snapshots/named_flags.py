"""Flags of models that no state contains: ``requires_grad`` of parameters, and the mode of modules."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

from torch import nn

from pte_tracking._distributed.wrappers import bare_name
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


class NamedFlag(NamedTuple):
    """Flag of one parameter or module.

    Attributes:
        is_set: Whether the flag is set.
        change: Sets or clears the flag.
    """

    is_set: bool
    change: Callable[[bool], object]


class NamedFlags:
    """Flags by name, which a training may change, and which a resume changes again.

    If the script itself sets other flags than before when it constructs the manager, it decides about these, which is
    logged. Later changes may belong to the training.

    Args:
        label: The flags, as named in the message.
        find: Returns the current flags by name.
    """

    def __init__(self, label: str, find: Callable[[], Mapping[str, NamedFlag]]) -> None:
        self._label = label
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
        for name, flag in self._find().items():
            if name not in changed and flag.is_set == (name in cleared):
                flag.change(name not in cleared)
        differing = sorted(name for name in changed if (name in cleared) != (name in self._given))
        if differing and rank == 0:
            self._log(differing, set(self._given))

    def _cleared(self) -> list[str]:
        return [name for name, flag in self._find().items() if not flag.is_set]

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

    def find() -> dict[str, NamedFlag]:
        return {
            name: NamedFlag(parameter.requires_grad, parameter.requires_grad_)
            for name, parameter in names.parameters().items()
        }

    return NamedFlags("requires_grad", find)


def module_modes(models: Mapping[str, Any]) -> NamedFlags:
    """Return the flags ``training`` of modules, which ``train()`` and ``eval()`` set.

    Args:
        models: Models by name.
    """

    def find() -> dict[str, NamedFlag]:
        return {
            f"{name}/{bare_name(model, path)}": NamedFlag(part.training, _setter(part))
            for name, model in models.items()
            if isinstance(model, nn.Module)
            for path, part in model.named_modules()
        }

    return NamedFlags("the training mode of modules", find)


def _setter(module: nn.Module) -> Callable[[bool], None]:
    def change(is_training: bool) -> None:
        module.training = is_training  # Without the modules in it.

    return change
