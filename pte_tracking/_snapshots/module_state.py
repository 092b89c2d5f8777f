"""States of modules, under names that do not depend on wrappers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pte_tracking._distributed import flat_sharding
from pte_tracking._distributed.wrappers import bare_name, has_wrappers, wrapped_name
from pte_tracking._snapshots.module_tree import ModuleTree

#: Modules of torch whose hooks and methods load older versions of states, or other shardings, with the same shapes.
_KEEPING_SHAPES = ("torch.nn.", "torch.distributed.")


def save_module(module: nn.Module, tree: ModuleTree | None = None) -> dict[str, Any]:
    """Return the state of a module, with the names that it has without ``torch.compile`` or data parallelism.

    Args:
        module: The module.
        tree: The parts of the module, if they were read before.
    """
    tree = tree or ModuleTree(module)
    state: dict[str, Any] = flat_sharding.full_state(module) if tree.is_flat else module.state_dict()
    return _rename(state, lambda name: bare_name(module, name)) if tree.is_wrapped else state


def load_module(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Restore a state that :func:`save_module` returned, also if the module is wrapped in another way.

    Args:
        module: The module.
        state: The state.
    """
    if has_wrappers(module):
        state = _rename(state, lambda name: wrapped_name(module, name))
    with flat_sharding.full_states(module):
        module.load_state_dict(state)


def compare_module(path: str, module: nn.Module, saved: Mapping[str, Any]) -> Iterator[str]:
    """Compare a module with a saved state.

    Names and shapes that an own method or hook of the module may change while it loads are not compared.

    Args:
        path: The module, as named in the differences.
        module: The module.
        saved: The state.

    Yields:
        The differences.
    """
    if type(module).load_state_dict is not nn.Module.load_state_dict or flat_sharding.is_flat(module):
        return  # The module decides which states it accepts.
    current = save_module(module)
    decides = _Deciding(module)
    for name in current:
        if name not in saved and not decides(name):
            yield f"{path}: {name!r} is missing from the snapshot"
    for name, value in saved.items():
        if decides(name):
            continue
        if name not in current:
            yield f"{path}: {name!r} is in the snapshot but not in the model"
        elif not _is_compatible(value, current[name]):
            yield (
                f"{path}: {name!r} is {_format_shape(value)} in the snapshot, "
                f"{_format_shape(current[name])} in the model"
            )


class _Deciding:
    """Predicate of names whose loading a module or one of its parts decides itself."""

    def __init__(self, module: nn.Module) -> None:
        self._prefixes = tuple(
            f"{bare_name(module, path)}." if path else ""
            for path, part in module.named_modules()
            if _customizes_loading(part)
        )

    def __call__(self, name: str) -> bool:
        return name.startswith(self._prefixes)


def _customizes_loading(module: nn.Module) -> bool:
    """Return whether a module may accept other names or shapes than it has."""
    functions = (type(module)._load_from_state_dict, *module._load_state_dict_pre_hooks.values())
    return not all(str(getattr(function, "__module__", "")).startswith(_KEEPING_SHAPES) for function in functions)


def _rename(state: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    renamed = OrderedDict((rename(name), value) for name, value in state.items())
    if (metadata := getattr(state, "_metadata", None)) is not None:
        # The names of modules. A wrapper and the module in it have one name; the module, which counts, comes second.
        entries = OrderedDict(
            (rename(f"{name}." if name else "").removesuffix("."), metadata[name]) for name in metadata
        )
        renamed._metadata = entries  # type: ignore[attr-defined]
    return renamed


def _is_compatible(saved: object, current: object) -> bool:
    if not isinstance(saved, Tensor) or not isinstance(current, Tensor) or is_lazy(current):
        return True
    return saved.shape == current.shape


def _format_shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
