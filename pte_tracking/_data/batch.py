"""Conversion of batches: device, arguments, and structure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, default_collate, default_convert


def to_device(batch: Any, device: torch.device | str | int | None) -> Any:
    """Move a batch to a device.

    Args:
        batch: The batch: an object with a method ``to``, or nested lists, tuples, and mappings of such objects.
        device: The device. None returns the batch unchanged.

    Returns:
        The moved batch. Values that cannot be moved are kept.
    """
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
    """Convert a batch to arguments of a function.

    Args:
        batch: A list or tuple is unpacked to positional arguments, a mapping to keyword arguments. Any other batch is
            one positional argument.

    Returns:
        Positional arguments and keyword arguments.
    """
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        return tuple(batch), {}
    return (batch,), {}


def check_signature(function: Callable[..., Any], batch: Any, argument: str, *, is_given: bool = True) -> None:
    """Check that a function can be called with a batch. Functions without a signature pass.

    Args:
        function: The function or module.
        batch: The batch.
        argument: Name of the argument that contains the function, for the error message.
        is_given: Whether the argument was given. Otherwise, the function is the model that is called by default.

    Raises:
        TypeError: If the signature does not accept the unpacked batch.
    """
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return  # builtins and compiled functions have no signature
    args, kwargs = unpack(batch)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        arguments = [f"part_{i}" for i in range(1, len(args) + 1)] + [f"{key}=..." for key in kwargs]
        name = getattr(function, "__name__", type(function).__name__)
        called, parts = argument if is_given else "model", ", ".join(arguments)
        remedy = "Pass a function that accepts them."
        if "missing" in str(error):
            remedy = f"Bind additional arguments, as in lambda data, target: {name}(model, data, target)."
        if isinstance(function, nn.Module):
            remedy = f"Pass {argument}=, a function that calls the model, as in lambda data, target: model(data)."
        message = (
            f"{argument}: each batch is unpacked, as in {called}({parts}), but {name}{signature} does not accept these "
            f"arguments: {error}. {remedy}"
        )
        raise TypeError(message if is_given else message.replace(": each", " is missing, and each", 1)) from None


def example_batch(loader: Iterable[Any]) -> Any:
    """Return a value with the structure of a loader's batches, or None if this requires reading data.

    Only data in memory is used. Reading from any other dataset may be slow, draw random numbers, or open files that
    must not be open when workers are forked.
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
    """Yield each batch and whether it is the last. The length of the loader is not used."""
    end = object()
    iterator = iter(batches)
    batch = next(iterator, end)
    while batch is not end:
        following = next(iterator, end)
        yield batch, following is end
        batch = following
