"""Batches of data: where they lie, and how a function takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, default_collate, default_convert


def to_device(batch: Any, device: torch.device | str | int | None) -> Any:
    """The same batch with all that can be moved on that device; as it is if that is None."""
    if device is None:
        return batch
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(part, device) for part in batch)
    return batch


def unpack(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A batch as arguments: by position from a list or tuple, by name from a mapping, else the whole of it."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        return tuple(batch), {}
    return (batch,), {}


def check_signature(function: Callable[..., Any], batch: Any, argument: str) -> None:
    """Makes sure that a function can be called with a batch, as far as its signature can be known.

    Raises:
        TypeError: It cannot.
    """
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return  # builtins and compiled functions do not tell
    args, kwargs = unpack(batch)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        arguments = [f"part_{i}" for i in range(1, len(args) + 1)] + [f"{key}=..." for key in kwargs]
        name = getattr(function, "__name__", type(function).__name__)
        raise TypeError(
            f"{argument}: it is called with each batch unpacked, as {argument}({', '.join(arguments)}); "
            f"{name}{signature} cannot be called so: {error}. Bind what else it takes, as in "
            f"lambda data, target: {name}(model, data, target)"
        ) from None


def example_batch(loader: Iterable[Any]) -> Any:
    """Something of the form of the loader's batches, if that is known without reading data; else None.

    Only what lies in memory is looked at: to read from any other dataset may cost time, draw random numbers,
    or open files that must not be open when the workers are forked.
    """
    if isinstance(loader, list | tuple):
        return loader[0] if loader else None
    if not isinstance(loader, DataLoader) or loader.collate_fn not in (default_collate, default_convert):
        return None
    dataset: Any = loader.dataset
    while isinstance(dataset, Subset | ConcatDataset):
        dataset = dataset.dataset if isinstance(dataset, Subset) else dataset.datasets[0]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors
    if isinstance(dataset, list | tuple):
        return dataset[0] if dataset else None
    return None


def mark_last(batches: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """Each batch with whether it is the last one; a loader's length may be unknown or wrong."""
    end = object()
    iterator = iter(batches)
    batch = next(iterator, end)
    while batch is not end:
        following = next(iterator, end)
        yield batch, following is end
        batch = following
