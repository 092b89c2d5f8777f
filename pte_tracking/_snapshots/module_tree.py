"""Modules and parameters in a model, under the names that they have without wrappers."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from torch import nn

from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._distributed.wrappers import bare_name, has_wrappers

_SEARCHES = ("named_modules", "named_parameters")


class ModuleTree:
    """Modules and parameters in a model, which are only named again after the model has changed.

    Args:
        root: The model.

    Attributes:
        parts: The modules, the model itself first.
        modules: Modules by name. That of the model itself is empty, and wrappers have none.
        own_modules: The modules by name whose class is not one of torch, and which may have attributes of any kind.
        parameters: Parameters by name. A parameter that several modules share has several names.
        is_wrapped: Whether the model or a part of it is wrapped, so its own names differ.
        is_flat: Whether the model or a part of it is wrapped in ``FullyShardedDataParallel``.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        #: Modules, parameters, and their attributes, by which a change is detected; None if it cannot be detected.
        self._content: list[Any] | None = None
        self.parts: list[nn.Module] = []
        self.refresh()

    def refresh(self) -> bool:
        """Find the modules and parameters again if the model has changed.

        Returns:
            Whether they were found again.
        """
        known, content = self._content, _content(self.parts)
        if known is not None and len(content) == len(known) and all(map(operator.is_, content, known)):
            return False
        root = self._root
        by_path = dict(root.named_modules())
        self.parts = [*by_path.values()]
        self.modules = {bare_name(root, path): part for path, part in by_path.items()}
        self.own_modules = {
            name: part for name, part in self.modules.items() if not type(part).__module__.startswith("torch.")
        }
        self.parameters = [
            (bare_name(root, path), parameter) for path, parameter in root.named_parameters(remove_duplicate=False)
        ]
        self.is_wrapped, self.is_flat = has_wrappers(root), is_flat(root)
        self._content = _content(self.parts) if all(map(_has_usual_search, self.parts)) else None
        return True


def _content(modules: Iterable[nn.Module]) -> list[Any]:
    # Before each snapshot, so this code is short.
    content: list[Any] = []
    for module in modules:
        content.append(module)
        if children := module._modules:
            content += children
            content += children.values()
        if parameters := module._parameters:
            content += (None, *parameters, *parameters.values())
    return content


def _has_usual_search(module: nn.Module) -> bool:
    return all(getattr(type(module), name) is getattr(nn.Module, name) for name in _SEARCHES)
