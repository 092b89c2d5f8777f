"""Tensors that torch excludes from the state of a module: buffers that are not persistent, and plain attributes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._snapshots.content_sum import content_sum, is_summable
from pte_tracking._snapshots.module_tree import ModuleTree

_logger = logging.getLogger("pte_tracking")
_MAX_NAMES = 5
_MAX_ITEMS = 8


def sum_unsaved(models: Mapping[str, ModuleTree]) -> dict[str, Tensor]:
    """Return a sum of the content of each tensor that no state contains, by name, such as ``main/cache``.

    Args:
        models: Modules of each model by name.
    """
    return {name: content_sum(buffer) for name, buffer in _unsaved_tensors(models)}


def report_unrestored(models: Mapping[str, ModuleTree], saved: Mapping[str, Tensor]) -> None:
    """Log the tensors whose content differs from that at the time of the snapshot.

    Args:
        models: Modules of each restored model by name.
        saved: The sums in the snapshot.
    """
    current = sum_unsaved(models)
    buffers = {f"{name}/{key}" for name, tree in models.items() for key, _ in _unsaved_buffers(tree)}
    differing = [
        name
        for name, value in saved.items()
        # A buffer without content is filled when it is used.
        if (name not in buffers if name not in current else not torch.equal(current[name].cpu(), value))
    ]
    if not differing:
        return
    more = f" and {len(differing) - _MAX_NAMES} more" if len(differing) > _MAX_NAMES else ""
    if buffers.issuperset(differing):
        kind = "buffers with persistent=False"
    else:
        kind = "tensors that are attributes, but no parameters or persistent buffers,"
    _logger.warning(
        "resume: %s are not part of snapshots and differ from those of the snapshot: %s%s. Register them with "
        "register_buffer(name, tensor, persistent=True) to restore them.",
        kind,
        ", ".join(map(repr, differing[:_MAX_NAMES])),
        more,
    )


def _unsaved_tensors(models: Mapping[str, ModuleTree]) -> Iterator[tuple[str, Tensor]]:
    for name, tree in models.items():
        for key, tensor in itertools.chain(_unsaved_buffers(tree), _attributes(tree)):
            if is_summable(tensor) and not is_sharded(tensor):
                yield f"{name}/{key}", tensor


def _unsaved_buffers(tree: ModuleTree) -> Iterator[tuple[str, Any]]:
    for path, module in tree.modules.items():
        for key in module._non_persistent_buffers_set:
            yield f"{path}.{key}" if path else key, module._buffers.get(key)


def _attributes(tree: ModuleTree) -> Iterator[tuple[str, Any]]:
    """Yield the tensors that are plain attributes of modules, also in lists and tuples, such as hidden states."""
    for path, module in tree.own_modules.items():
        for key, value in vars(module).items():
            name = f"{path}.{key}" if path else key
            if isinstance(value, Tensor):
                yield name, value
            elif isinstance(value, list | tuple) and len(value) <= _MAX_ITEMS:
                yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))
