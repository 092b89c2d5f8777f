"""States of optimizers: their parameters by name, and every element with its own type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pte_tracking._distributed.flat_sharding import find_flat_model, full_optimizer_state, local_optimizer_state
from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.zero_redundancy import gather_state, is_zero_redundancy
from pte_tracking._snapshots.exact_types import HostKeys, find_host_keys, keep_types
from pte_tracking._snapshots.flat_optimizer import name_parameters, number_parameters
from pte_tracking._snapshots.inner_optimizers import save_unsaved, torch_optimizers
from pte_tracking._snapshots.parameter_groups import GroupMatch, arrange_groups, arrange_state, match_groups
from pte_tracking._snapshots.parameter_names import GroupRecord, ParameterNames, is_position, parameter_groups
from pte_tracking._snapshots.plain_state import map_tensors


class SavedOptimizer(NamedTuple):
    """State of an optimizer, and what it does not contain.

    Attributes:
        state: The state, as the optimizer returns it. Its parameters are numbered.
        groups: The parameters of each group.
        host_keys: States on the host, although their parameters are on a device.
        inner: States of inner optimizers that the state does not contain, by path.
        parameters: Parameters that belong to no model, such as copies of the weights in single precision, by position.
        classes: Names of the classes of the optimizer and of those in it.
    """

    state: dict[str, Any]
    groups: list[GroupRecord]
    host_keys: HostKeys
    inner: dict[str, dict[str, Any]]
    parameters: dict[str, Tensor]
    classes: list[str]

    def details(self) -> dict[str, Any]:
        """Return the entries of a snapshot other than the state."""
        return {
            "groups": self.groups,
            "host_keys": self.host_keys,
            "inner": self.inner,
            "parameters": self.parameters,
            "classes": self.classes,
        }


class OptimizerStates:
    """Saving, comparing, and restoring of the optimizers of some models.

    Args:
        models: Models by name. Objects that are not modules are ignored.
    """

    def __init__(self, models: Mapping[str, Any]) -> None:
        self._models = {name: model for name, model in models.items() if isinstance(model, nn.Module)}
        self.names = ParameterNames(models)

    def save(self, optimizer: Any) -> SavedOptimizer:
        """Return the state of an optimizer, with the names of the last refresh.

        All ranks call this if the optimizer is distributed.
        """
        if flat := find_flat_model(optimizer, self._models):
            state, groups = number_parameters(full_optimizer_state(optimizer, flat[1]), flat[0])
            return SavedOptimizer(state, groups, {}, {}, {}, _class_names(optimizer))
        state = gather_state(optimizer) if is_zero_redundancy(optimizer) else optimizer.state_dict()
        return SavedOptimizer(
            state,
            groups := self._describe(optimizer),
            find_host_keys(state, optimizer),
            save_unsaved(optimizer, state),
            _unnamed_parameters(optimizer, groups),
            _class_names(optimizer),
        )

    def compare(self, path: str, optimizer: Any, saved: SavedOptimizer) -> Iterator[str]:
        """Compare an optimizer with a saved one.

        Args:
            path: The optimizer, as named in the differences.
            optimizer: The optimizer.
            saved: The saved optimizer.

        Yields:
            The differences.
        """
        self.names.refresh()
        classes = _class_names(optimizer)
        # An optimizer may gain or lose a wrapper.
        if classes and saved.classes and not set(classes) & set(saved.classes):
            yield f"{path}: the optimizer is of class {saved.classes[0]} in the snapshot, of class {classes[0]} now"
            return
        if find_flat_model(optimizer, self._models):
            return  # torch finds the parameters by name.
        if inner := [name for name in saved.inner if name not in torch_optimizers(optimizer)]:
            yield f"{path}: the snapshot contains the inner optimizers {', '.join(inner)}, the optimizer does not"
        current, records = self._describe(optimizer), saved.groups
        if not _has_groups(optimizer, saved.state):
            # An object that wraps an optimizer restores its state by position.
            if records and _order(records) != _order(current) and not match_groups(records, current).differences:
                yield _describe_order(path, optimizer, records, current)
            return
        match = self._match(optimizer, saved)
        if match.differences:
            yield from (f"{path}: {difference}" for difference in match.differences)
            return
        if _order(records) != _order(current) and _joins_parameters(saved.state, optimizer):
            yield _describe_order(path, optimizer, records, current)

    def arrange(self, optimizer: Any, saved: SavedOptimizer) -> SavedOptimizer:
        """Return a saved optimizer with its parameters in the order of the current one.

        Args:
            optimizer: The current optimizer.
            saved: A saved optimizer without differences.
        """
        self.names.refresh()
        if find_flat_model(optimizer, self._models) or not _has_groups(optimizer, saved.state):
            return saved
        order = self._match(optimizer, saved).order
        host_keys = _reorder(saved.host_keys, saved.state, order)
        return saved._replace(
            state=arrange_state(saved.state, order), groups=arrange_groups(saved.groups, order), host_keys=host_keys
        )

    def group_order(self, optimizer: Any, saved: SavedOptimizer) -> list[int]:
        """Return for each current parameter group its number in a saved optimizer; empty if it does not matter.

        Args:
            optimizer: The current optimizer.
            saved: A saved optimizer without differences.
        """
        if find_flat_model(optimizer, self._models) or not _has_groups(optimizer, saved.state):
            return []
        return [number for number, _ in self._match(optimizer, saved).order]

    def load(self, optimizer: Any, saved: SavedOptimizer) -> None:
        """Restore an optimizer. Groups that were added to it while it was trained are added.

        Args:
            optimizer: The optimizer.
            saved: A saved optimizer without differences.
        """
        self.names.refresh()
        if flat := find_flat_model(optimizer, self._models):
            state = name_parameters(saved.state, saved.groups, flat[0])
            optimizer.load_state_dict(local_optimizer_state(optimizer, flat[1], state))
            return
        saved = self.arrange(optimizer, saved)
        optimizers = torch_optimizers(optimizer)
        shared = [inner for path, inner in optimizers.items() if path and _shares_groups(optimizer, inner)]
        if _has_groups(optimizer, saved.state):
            self._add_groups(optimizer, saved.groups[len(optimizer.param_groups) :])
        saved_dtypes = self._saved_dtypes(saved.groups)
        with keep_types(optimizers.values(), saved_dtypes, saved.host_keys):
            for path, state in saved.inner.items():
                optimizers[path].load_state_dict(state)
            optimizer.load_state_dict(_copy_containers(saved.state))
        for inner in shared:
            inner.param_groups = optimizer.param_groups

    def load_parameters(self, optimizer: Any, saved: Mapping[str, Tensor]) -> None:
        """Restore the parameters that belong to no model.

        Args:
            optimizer: The restored optimizer.
            saved: The parameters by position.
        """
        with torch.no_grad():
            for name, parameter in _unnamed_parameters(optimizer, self._describe(optimizer)).items():
                if name in saved and saved[name].shape == parameter.shape:
                    parameter.copy_(saved[name])

    def parameters_by_name(self, optimizer: Any) -> dict[str, Tensor]:
        """Return the parameters of an optimizer by name."""
        return dict(zip(_order(self._describe(optimizer)), _parameters(optimizer), strict=True))

    def names_by_id(self, optimizer: Any) -> dict[int, str]:
        """Return the names of the parameters of an optimizer by identity."""
        return {id(parameter): name for name, parameter in self.parameters_by_name(optimizer).items()}

    def _describe(self, optimizer: Any) -> list[GroupRecord]:
        return [record for item in _with_groups(optimizer) for record in self.names.describe_groups(item)]

    def _match(self, optimizer: Any, saved: SavedOptimizer) -> GroupMatch:
        available = self.names.parameters().keys() if hasattr(optimizer, "add_param_group") else ()
        return match_groups(saved.groups, self._describe(optimizer), available)

    def _add_groups(self, optimizer: Any, groups: list[GroupRecord]) -> None:
        if not groups:
            return
        # A new list: the caller may return to the earlier one.
        optimizer.param_groups = list(optimizer.param_groups)
        parameters = self.names.parameters()
        for group in groups:
            optimizer.add_param_group({"params": [parameters[name] for name in group["names"]]})

    def _saved_dtypes(self, groups: list[GroupRecord]) -> dict[int, torch.dtype]:
        dtypes = {name: dtype for group in groups for name, dtype in zip(group["names"], group["dtypes"], strict=True)}
        return {id(parameter): dtypes[name] for name, parameter in self.names.parameters().items() if name in dtypes}


def _with_groups(optimizer: Any) -> list[Any]:
    """Return the optimizer, or its inner optimizers if it has no parameter groups."""
    return [optimizer] if parameter_groups(optimizer) else list(torch_optimizers(optimizer).values())


def _parameters(optimizer: Any) -> Iterator[Tensor]:
    return (
        parameter for item in _with_groups(optimizer) for group in item.param_groups for parameter in group["params"]
    )


def _unnamed_parameters(optimizer: Any, groups: list[GroupRecord]) -> dict[str, Tensor]:
    """Return the parameters that belong to no model, by position."""
    return {
        name: parameter.detach()
        for name, parameter in zip(_order(groups), _parameters(optimizer), strict=True)
        if is_position(name) and not is_sharded(parameter)
    }


def _has_groups(optimizer: Any, state: Mapping[str, Any]) -> bool:
    """Return whether the state has the format of torch. An object that wraps an optimizer may have its own."""
    return bool(parameter_groups(optimizer)) and "param_groups" in state and "state" in state


def _order(groups: list[GroupRecord]) -> list[str]:
    return [name for group in groups for name in group["names"]]


def _describe_order(path: str, optimizer: Any, saved: list[GroupRecord], current: list[GroupRecord]) -> str:
    return (
        f"{path}: {type(optimizer).__name__} restores its state by position, but the order of the parameters is "
        f"{', '.join(_order(saved))} in the snapshot, {', '.join(_order(current))} in the optimizer"
    )


def _joins_parameters(state: Mapping[str, Any], optimizer: Any) -> bool:
    """Return whether a state has vectors of the elements of all parameters, one after the other, as that of LBFGS."""
    sizes = [parameter.numel() for parameter in _parameters(optimizer)]
    found: set[int] = set()

    def collect(tensor: Tensor, path: str) -> Tensor:
        found.add(tensor.numel())
        return tensor

    map_tensors(state["state"], collect)
    return len(sizes) > 1 and sum(sizes) in found


def _class_names(optimizer: object) -> list[str]:
    return [type(item).__name__ for item in torch_optimizers(optimizer).values()]


def _copy_containers(state: dict[str, Any]) -> dict[str, Any]:
    """Copy the containers of a state, which some optimizers change while they load it."""
    copied: dict[str, Any] = map_tensors(state, lambda tensor, _: tensor)
    return copied


def _shares_groups(optimizer: Any, inner: Any) -> bool:
    return optimizer is not inner and getattr(optimizer, "param_groups", None) is inner.param_groups


def _reorder(host_keys: HostKeys, state: Mapping[str, Any], order: list[tuple[int, list[int]]]) -> HostKeys:
    numbers = [state["param_groups"][group]["params"][position] for group, positions in order for position in positions]
    return {new: host_keys[old] for new, old in enumerate(numbers) if old in host_keys}
