"""Names of parameters across the models of a training, by which optimizer states are matched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from pte_tracking._snapshots.module_tree import ModuleTree


class GroupRecord(TypedDict):
    """Parameters of one group of an optimizer.

    Attributes:
        names: Names of the parameters, such as ``main/encoder.weight``.
        dtypes: Types of their elements.
    """

    names: list[str]
    dtypes: list[torch.dtype]


class ParameterNames:
    """Names of the parameters of models, such as ``main/encoder.weight``.

    Args:
        models: Models by name. Objects that are not modules have no parameters.

    Attributes:
        trees: The models by name, with the names of their parts.
    """

    def __init__(self, models: Mapping[str, Any]) -> None:
        self.trees = {name: ModuleTree(model) for name, model in models.items() if isinstance(model, nn.Module)}
        self._parameters: Mapping[str, Tensor] = {}
        #: Names by identity. A sharded model replaces its parameters temporarily; the optimizer keeps them.
        self._names: dict[int, tuple[Tensor, str]] = {}
        self._read()

    def refresh(self) -> None:
        """Find parameters that the models have gained."""
        changes = [tree.refresh() for tree in self.trees.values()]
        if any(changes):
            self._read()

    def parameters(self) -> Mapping[str, Tensor]:
        """Return the parameters by name. A parameter that several modules share has its first name."""
        return self._parameters

    def _read(self) -> None:
        names: dict[int, str] = {}
        parameters: dict[int, Tensor] = {}
        for model, tree in self.trees.items():
            for path, found in tree.parameters:
                name = f"{model}/{path}"
                # The least name does not depend on the order in which the modules were made.
                names[id(found)] = min(name, names.get(id(found), name))
                parameters[id(found)] = found
        self._parameters = {names[key]: parameters[key] for key in names}
        # A training may move a parameter, such as into an adapter. Its current name counts.
        self._names.update((id(parameter), (parameter, name)) for name, parameter in self._parameters.items())

    def name_of(self, parameter: Tensor) -> str | None:
        """Return the name of a parameter; None if it belongs to no model."""
        entry = self._names.get(id(parameter))
        return None if entry is None else entry[1]

    def describe_groups(self, optimizer: Any) -> list[GroupRecord]:
        """Describe the parameter groups of an optimizer; empty if it has none.

        A parameter that belongs to no model is named by its position, such as ``#0/1``.
        """
        known = self._names
        return [
            GroupRecord(
                names=[
                    known[id(parameter)][1] if id(parameter) in known else f"{_POSITION}{number}/{index}"
                    for index, parameter in enumerate(group["params"])
                ],
                dtypes=[parameter.dtype for parameter in group["params"]],
            )
            for number, group in enumerate(parameter_groups(optimizer))
        ]


_POSITION = "#"


def is_position(name: str) -> bool:
    """Return whether a parameter has no name, only a position."""
    return name.startswith(_POSITION)


def parameter_groups(optimizer: Any) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer; empty for an object without them."""
    groups = getattr(optimizer, "param_groups", ())
    # Some objects, such as metrics of Ignite, return a function for any attribute.
    return groups if isinstance(groups, list) else []
