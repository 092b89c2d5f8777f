"""Message about data that differ after a resume, with the likely cause."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import GeneratorType
from typing import NamedTuple

from torch.utils.data import DataLoader

from pte_tracking._data.batch_digest import BatchDigest, differing_parts
from pte_tracking._data.counters import counters_of
from pte_tracking._data.object_search import attributes_of, walk
from pte_tracking._data.position import keeps_workers, options_of
from pte_tracking._data.stateful_loader import is_stateful
from pte_tracking._store.printable import escape_controls

_SHAPE = re.compile(r"(.*)\[(\d+)(.*)\]|(.* of )(\d+)()", re.DOTALL)


class Comparison(NamedTuple):
    """Digests of one batch before and after a resume.

    Attributes:
        earlier: Digest before the resume.
        current: Digest after the resume.
        taken: Number of batches of the pass up to this one.
        is_skipped: Whether the batch was loaded again to skip it. Otherwise, it is the first new batch.
        is_predecessor_equal: Whether the skipped batch before it is known to be equal.
    """

    earlier: BatchDigest
    current: BatchDigest
    taken: int
    is_skipped: bool
    is_predecessor_equal: bool = False


def describe_difference(loader: object, comparison: Comparison) -> str | None:
    """Return what differs and the likely cause, or None if nothing differs.

    Args:
        loader: The loader that delivered the batch.
        comparison: The digests to compare.
    """
    paths = differing_parts(comparison.earlier, comparison.current)
    if not paths:
        return None
    role = "which was skipped" if comparison.is_skipped else "the first new one"
    return (
        f"Batch {comparison.taken} of this pass, {role}, is not the same as before: {_describe(comparison, paths)}. "
        f"Likely cause: {_find_cause(loader, comparison, paths)}"
    )


def _describe(comparison: Comparison, paths: list[str]) -> str:
    # A part whose type differs explains more than one whose content differs.
    path = next((path for path in paths if _kinds(comparison, path)), paths[0])
    where = f" at {escape_controls(path)}" if path else ""
    if kinds := _kinds(comparison, path):
        return f"{kinds[1]}{where}, and not {escape_controls(kinds[0])}"
    return f"other values{where}"


def _kinds(comparison: Comparison, path: str) -> tuple[str, str] | None:
    """Return the types of a part before and after the resume, if they differ."""
    earlier, current = comparison.earlier[path][0], comparison.current[path][0]
    return None if earlier == current else (earlier, current)


def _find_cause(loader: object, comparison: Comparison, paths: list[str]) -> str:
    all_kinds = [kinds for path in paths if (kinds := _kinds(comparison, path))]
    if all_kinds:
        sizes = {_changed_size(*kinds) for kinds in all_kinds}
        size = sizes.pop()
        if size and not sizes:
            return f"the batch size was {size[0]} and is {size[1]}. Use the earlier batch size to repeat the order."
        return "another data set, or other transformations. Resume with the same data."
    if comparison.is_predecessor_equal:
        return (
            "random numbers that are drawn ahead of the training, as by a loader that prefetches batches in a thread, "
            "or other data from this batch on, because the batch before it is the same. Give the data a separate "
            "generator, and pass it in state_objects."
        )
    return _find_object_cause(loader)


def _changed_size(earlier: str, current: str) -> tuple[int, int] | None:
    """Return the earlier and the current batch size, if the types of a part differ in nothing else."""
    matches = _SHAPE.fullmatch(earlier), _SHAPE.fullmatch(current)
    if matches[0] is None or matches[1] is None:
        return None
    first, second = ([group for group in match.groups() if group is not None] for match in matches if match)
    return (int(first[1]), int(second[1])) if (first[0], first[2]) == (second[0], second[2]) else None


def _find_object_cause(loader: object) -> str:
    for path, part in walk(loader):
        counter = None if counters_of(path, part) else _find_counter(part)
        if counter is not None and not hasattr(type(part), "set_epoch"):
            return (
                f"{type(part).__name__} counts its passes in {counter!r}, which starts from its first value again. "
                "Give it a method set_epoch(epoch) in place of the counter, or pass it in state_objects."
            )
    if (name := _find_kept_iterator(loader)) is not None:
        return (
            f"{name} is an iterator, which continues from the pass before. Begin an iterator in each pass, in "
            "__iter__(), or pass the position in state_objects."
        )
    if is_stateful(loader) and not isinstance(loader, DataLoader):
        return (
            f"load_state_dict() of {type(loader).__name__} does not continue after the batch at which state_dict() was "
            "called. Restore the position in the pass. Without these two methods, the batches are read again."
        )
    if keeps_workers(loader):
        return (
            "random numbers of persistent workers, which depend on all earlier passes. Pass persistent_workers=False."
        )
    if is_stateful(loader) and options_of(loader).workers:
        return "random numbers of the workers, which the loader restarts. Pass num_workers=0."
    return (
        "a random generator that is not part of the snapshot, such as one that is seeded by the time; a count of the "
        "epochs in a global variable, an iterator, or a worker process; or changed data. Pass the object that "
        "determines the order in state_objects, or give it a method set_epoch(epoch)."
    )


def _find_kept_iterator(loader: object) -> str | None:
    """Return the class and the name of an attribute that is an iterator."""
    for _, part in walk(loader):
        if isinstance(part, DataLoader):  # It keeps its iterator for its workers.
            continue
        for name, value in attributes_of(part).items():
            if isinstance(value, Iterator) and (isinstance(value, GeneratorType) or not hasattr(value, "close")):
                return f"{type(part).__name__}.{name}"  # A file is an iterator, too.
    return None


def _find_counter(part: object) -> str | None:
    """Return the name of an attribute that counts passes."""
    names = (name for name, value in attributes_of(part).items() if type(value) is int and "epoch" in name.lower())
    return next(names, None)
