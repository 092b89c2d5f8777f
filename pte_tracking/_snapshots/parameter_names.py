"""Names of parameters across the models of a training, by which optimizer states are matched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from pte_tracking._distributed.wrappers import bare_name


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
    """

    def __init__(self, models: Mapping[str, Any]) -> None:
        self._models = {name: model for name, model in models.items() if isinstance(model, nn.Module)}
        #: Names by identity. A sharded model replaces its parameters temporarily, but the optimizer keeps the first.
        self._names: dict[int, tuple[Tensor, str]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Find parameters that the models have gained."""
        for name, parameter in self.parameters().items():
            self._names.setdefault(id(parameter), (parameter, name))

    def parameters(self) -> dict[str, Tensor]:
        """Return the current parameters by name. A parameter that several modules share has its first name."""
        names: dict[int, str] = {}
        parameters: dict[int, Tensor] = {}
        for name, parameter in self._named_parameters():
            # The least name does not depend on the order in which the modules were made.
            names[id(parameter)] = min(name, names.get(id(parameter), name))
            parameters[id(parameter)] = parameter
        return {names[key]: parameters[key] for key in names}

    def name_of(self, parameter: Tensor) -> str | None:
        """Return the name of a parameter; None if it belongs to no model."""
        entry = self._names.get(id(parameter))
        return None if entry is None else entry[1]

    def describe_groups(self, optimizer: Any) -> list[GroupRecord]:
        """Describe the parameter groups of an optimizer; empty if it has none.

        A parameter that belongs to no model is named by its position, such as ``#0/1``.
        """
        return [
            GroupRecord(
                names=[
                    self.name_of(parameter) or f"{_POSITION}{number}/{index}"
                    for index, parameter in enumerate(group["params"])
                ],
                dtypes=[parameter.dtype for parameter in group["params"]],
            )
            for number, group in enumerate(parameter_groups(optimizer))
        ]

    def _named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        for name, model in self._models.items():
            for path, parameter in model.named_parameters(remove_duplicate=False):
                yield f"{name}/{bare_name(model, path)}", parameter


_POSITION = "#"


def is_position(name: str) -> bool:
    """Return whether a parameter has no name, only a position."""
    return name.startswith(_POSITION)


def parameter_groups(optimizer: Any) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer; empty for an object without them."""
    groups = getattr(optimizer, "param_groups", ())
    # Some objects, such as metrics of Ignite, return a function for any attribute.
    return groups if isinstance(groups, list) else []
