"""Parts of a data loader: datasets, samplers, and random generators."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Protocol, TypedDict, cast, runtime_checkable

import torch
from torch import Tensor

from pte_tracking._snapshots import rng


class RandomStates(TypedDict):
    """States of the random generators that a loader uses.

    Attributes:
        everywhere: States of the global generators.
        own: States of the generators in the loader and its samplers.
    """

    everywhere: rng.RandomState
    own: list[Tensor]


@runtime_checkable
class StatefulLoader(Protocol):
    """Loader that saves and restores its own position."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


def length_of(loader: object) -> int | None:
    """Return the number of batches in a pass, None if unknown."""
    try:
        return len(cast(Sized, loader))
    except (TypeError, NotImplementedError):
        return None


def find_components(loader: object) -> list[object]:
    """Return the dataset and samplers of a loader, which may have a generator or a method set_epoch."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    components = [
        getattr(loader, "dataset", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
        getattr(loader, "sampler", None),
    ]
    return list({id(component): component for component in components if component is not None}.values())


def find_generators(loader: object) -> list[torch.Generator]:
    """Return the random generators of a loader and its components, each once."""
    generators = [getattr(component, "generator", None) for component in (loader, *find_components(loader))]
    return list(
        {id(generator): generator for generator in generators if isinstance(generator, torch.Generator)}.values()
    )


def keeps_workers(loader: object) -> bool:
    """Whether the worker processes of a loader live longer than a pass."""
    return bool(getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0))


def get_random_states(loader: object) -> RandomStates:
    """Return the states of the global random generators and of those of a loader."""
    return RandomStates(
        everywhere=rng.get_state(), own=[generator.get_state() for generator in find_generators(loader)]
    )


def set_random_states(loader: object, states: RandomStates) -> None:
    """Restore the states of the global random generators and of those of a loader."""
    rng.set_state(states["everywhere"])
    for generator, own in zip(find_generators(loader), states["own"], strict=True):
        generator.set_state(own)
