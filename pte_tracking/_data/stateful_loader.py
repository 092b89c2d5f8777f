"""Loaders that save and restore their own position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeGuard, cast

from torch.utils.data import DataLoader

from pte_tracking._data.loader_state import LoaderState
from pte_tracking._data.object_search import walk
from pte_tracking._data.position import LoaderOptions


class StatefulLoader(Protocol):
    """Loader that saves and restores its own position."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


def is_stateful(loader: object) -> TypeGuard[StatefulLoader]:
    """Whether a loader restores its own position.

    Its class has to define the methods: a wrapper that only passes attributes on does not. The loaders of accelerate
    read one batch ahead of their state.
    """
    has_methods = hasattr(type(loader), "state_dict") and hasattr(type(loader), "load_state_dict")
    return has_methods and type(loader).__module__.partition(".")[0] != "accelerate"


def is_node_loader(loader: object) -> bool:
    """Whether a loader is a ``torchdata.nodes.Loader``."""
    return type(loader).__module__.startswith("torchdata.nodes")


def forget_iterators(loader: object) -> None:
    """Drop the iterators that loaders of torchdata below a loader began before the first pass.

    A loader of accelerate begins one when it is prepared, whose order follows from the random state at that time.
    """
    for path, part in walk(loader):
        modules = [kind.__module__ for kind in type(part).__mro__]
        is_stateful_loader = any(module.startswith("torchdata.stateful_dataloader") for module in modules)
        if path and is_stateful_loader and isinstance(part, DataLoader):
            # There is no other way to drop it. An empty state leaves a state that the script has loaded as it is.
            cast(StatefulLoader, part).load_state_dict({})


def reports_state(loader: StatefulLoader) -> bool:
    """Whether ``state_dict()`` works. Some loaders have this method, but support it only for some datasets."""
    try:
        loader.state_dict()
    except Exception:
        return False
    return True


def restores_exactly(loader: object, state: LoaderState) -> bool:
    """Whether a loader restores a position exactly from its own state.

    A StatefulDataLoader iterates twice over a sampler without state, which advances generators and counters of the
    sampler, and takes the state of a sampler as a position.
    """
    if state["loader"] is None or not is_stateful(loader):
        return False
    parts = state["parts"]
    has_other_generators = any("torch" not in generator for generator in parts["generators"].values())
    has_own_parts = parts["counters"] or parts["objects"] or has_other_generators
    return not (isinstance(loader, DataLoader) and has_own_parts)


def check_workers(name: str, loader: object, saved: LoaderOptions, current: LoaderOptions, taken: int) -> None:
    """Check that a loader can restore its position with its number of workers.

    Args:
        name: Name of the loader, for the message.
        loader: The loader.
        saved: Options at the snapshot.
        current: Options now.
        taken: Number of batches taken in the interrupted pass.

    Raises:
        ValueError: If the number of workers has changed in the middle of a pass.
    """
    if taken and saved.workers != current.workers:
        raise ValueError(
            f"loader {name!r}: this {type(loader).__name__} has num_workers={current.workers}, but the snapshot was "
            f"saved in the middle of a pass with num_workers={saved.workers}. Its position can be restored only with "
            f"the same number of workers. Resume with num_workers={saved.workers}, or from a snapshot of the end of an "
            "epoch."
        )


def load_position(name: str, loader: StatefulLoader, own_state: dict[str, Any]) -> Iterator[Any]:
    """Load the state of a loader, and return an iterator over the rest of the pass, also if the pass has ended.

    Args:
        name: Name of the loader, for the message.
        loader: The loader.
        own_state: The state.

    Raises:
        ValueError: If the loader refuses the state.
    """
    try:
        loader.load_state_dict(own_state)
        if not getattr(loader, "restart_on_stop_iteration", False):
            return iter(loader)
        # A loader of torchdata.nodes would start the next pass.
        nodes: Any = loader
        nodes.restart_on_stop_iteration = False
        try:
            return iter(loader)
        finally:
            nodes.restart_on_stop_iteration = True
    except Exception as error:
        raise ValueError(
            f"loader {name!r}: {type(loader).__name__}.load_state_dict() failed with {type(error).__name__}: {error}. "
            "Resume with the same loader, data, and number of workers."
        ) from error
