"""Position of an interrupted pass in a loader that may have changed since the snapshot."""

from __future__ import annotations

import logging
from collections.abc import Sized
from typing import NamedTuple, cast

from torch.utils.data import DataLoader, Sampler

from pte_tracking._data.object_search import attributes_of, walk
from pte_tracking._distributed import environment

_logger = logging.getLogger("pte_tracking")


class LoaderOptions(NamedTuple):
    """Properties of a loader that a position depends on.

    Attributes:
        length: Number of batches in the current pass; None if unknown.
        batch_size: Number of samples in a batch; None if unknown.
        workers: Number of worker processes.
    """

    length: int | None
    batch_size: int | None
    workers: int


def options_of(loader: object) -> LoaderOptions:
    """Return the options of a loader, or of the first DataLoader that it wraps."""
    wrapped = _wrapped_loader(loader)
    return LoaderOptions(length_of(loader), _batch_size(wrapped), int(getattr(wrapped, "num_workers", 0) or 0))


def length_of(loader: object) -> int | None:
    """Return the number of batches in a pass; None if unknown."""
    try:
        return len(cast(Sized, loader))
    except (TypeError, NotImplementedError):
        return None


def keeps_workers(loader: object) -> bool:
    """Whether the worker processes of a loader live longer than a pass."""
    wrapped = _wrapped_loader(loader)
    return bool(getattr(wrapped, "persistent_workers", False) and getattr(wrapped, "num_workers", 0))


def resumed_position(name: str, taken: int, saved: LoaderOptions, current: LoaderOptions, is_resized: bool) -> int:
    """Return the number of batches to skip, and log the options that have changed.

    The position is kept in samples if the batch size has changed, and as a fraction of the pass if the world size has
    changed.

    Args:
        name: Name of the loader, for the messages.
        taken: Number of batches taken in the interrupted pass.
        saved: Options at the snapshot.
        current: Options now.
        is_resized: Whether the world size has changed.
    """
    if is_resized:
        return rescaled_position(taken, saved.length, current.length)
    if saved.batch_size and current.batch_size and saved.batch_size != current.batch_size:
        samples = taken * saved.batch_size
        _report_batch_size(name, samples, saved, current)
        return samples // current.batch_size
    if saved.length is not None and current.length is not None and saved.length != current.length:
        _warn(
            "loader %r: a pass now has %s and had %d at the snapshot, so the data or the batches differ. "
            "Training continues %s, and the order of the data is not that of the interrupted training.",
            *(name, counted(current.length, "batch"), saved.length),
            f"after {counted(taken, 'batch')} of the pass" if taken < current.length else "with the next pass",
        )
    elif saved.workers != current.workers:
        _warn(
            "loader %r: num_workers is %d and was %d at the snapshot. The order of the data is exact. Random numbers "
            "that a dataset draws in workers differ.",
            *(name, current.workers, saved.workers),
        )
    return taken


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``"1 batch"`` or ``"2 batches"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('ch') else 's'}"


def rescaled_position(taken: int, old_length: int | None, new_length: int | None) -> int:
    """Return the number of batches that are the same fraction of a pass of another length."""
    return taken if not old_length or not new_length else taken * new_length // old_length


def _report_batch_size(name: str, samples: int, saved: LoaderOptions, current: LoaderOptions) -> None:
    if current.batch_size is None or environment.rank() != 0:
        return
    text = f"the batch size is {current.batch_size} and was {saved.batch_size} at the snapshot"
    if current.length is not None and saved.length is not None:
        text += f", so a pass has {counted(current.length, 'batch')} and had {saved.length}"
    again = samples % current.batch_size
    if samples:
        text += f". Training continues after {counted(samples, 'sample')} of the pass"
    if again:
        text += f", of which the last {again} are used again" if again > 1 else ", of which the last is used again"
    _logger.log(logging.WARNING if again else logging.INFO, "loader %r: %s.", name, text)


def _warn(text: str, *args: object) -> None:
    if environment.rank() == 0:
        _logger.warning(text, *args)


def _wrapped_loader(loader: object) -> object:
    return next((part for _, part in walk(loader) if isinstance(part, DataLoader)), loader)


def _batch_size(loader: object) -> int | None:
    """Return the batch size of a loader, or of the first of its samplers that has one."""
    for _, part in walk(loader):
        if part is loader or isinstance(part, Sampler):
            batch_size = attributes_of(part).get("batch_size")
            if type(batch_size) is int and batch_size > 0:
                return batch_size
    return None
