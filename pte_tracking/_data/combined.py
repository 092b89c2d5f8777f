"""Several data loaders that are iterated together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset

from pte_tracking._data.position import length_of


class CombinedLoader:
    """Loader of dictionaries or tuples with one batch of each loader. A pass ends with the shortest loader.

    Loaders of a dictionary are read in the order of their names, so that their states and the random numbers that they
    draw do not depend on the order of the dictionary.

    Args:
        loaders: The loaders by name, or a sequence of loaders.

    Raises:
        ValueError: If there is no loader.
        TypeError: If an item cannot be iterated.
    """

    def __init__(self, loaders: Mapping[Any, Iterable[Any]] | Iterable[Iterable[Any]]) -> None:
        self.names: list[Any] | None = None
        self._given_names: list[Any] = []
        if isinstance(loaders, Mapping):
            self.names, self._given_names = sorted(loaders, key=str), list(loaders)
            loaders = [loaders[name] for name in self.names]
        self.loaders = list(loaders)
        if not self.loaders:
            raise ValueError("loader: expected at least one loader, got an empty dictionary")
        for name, loader in zip(self.names or range(len(self.loaders)), self.loaders, strict=True):
            if not hasattr(loader, "__iter__"):
                raise TypeError(
                    f"loader: expected loaders by name, got an object of type {type(loader).__name__} as {name!r}"
                    f"{dataset_hint(loader)}"
                )

    def __len__(self) -> int:
        lengths = [length for loader in self.loaders if (length := length_of(loader)) is not None]
        if not lengths:
            raise TypeError("none of the loaders has a length")
        return min(lengths)

    def __iter__(self) -> Iterator[Any]:
        names = self.names
        if names is None:
            yield from zip(*self.loaders, strict=False)
            return
        places = [(name, names.index(name)) for name in self._given_names]
        for batches in zip(*self.loaders, strict=False):
            yield {name: batches[place] for name, place in places}


def combine(loader: Any) -> Any:
    """Return a loader of a dictionary of loaders, or of a sequence of DataLoaders; any other loader unchanged."""
    if isinstance(loader, Mapping):
        return CombinedLoader(loader)
    if isinstance(loader, list | tuple) and loader and all(isinstance(item, DataLoader) for item in loader):
        return CombinedLoader(loader)
    return loader


def dataset_hint(value: object) -> str:
    """Return the end of an error message that explains how to load a dataset. Empty if the value is none.

    Args:
        value: The object in place of a loader. A dataset that can be iterated, such as an ``IterableDataset``, is one.
    """
    if not isinstance(value, Dataset) or hasattr(value, "__iter__"):
        return ""
    return (
        ". A dataset yields samples, not batches. Pass DataLoader(dataset, batch_size=32, shuffle=True), or "
        "DataLoader(dataset, batch_size=None) if its items are batches."
    )


def is_same_loader(first: object, second: object) -> bool:
    """Whether two loaders are one object, or combine the same loaders."""
    if isinstance(first, CombinedLoader) and isinstance(second, CombinedLoader):
        loaders = zip(first.loaders, second.loaders, strict=False)
        is_equal = first.names == second.names and len(first.loaders) == len(second.loaders)
        return is_equal and all(one is other for one, other in loaders)
    return first is second
