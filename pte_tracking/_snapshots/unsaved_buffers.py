"""Buffers that are not persistent, which torch excludes from the state of a module."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._snapshots.content_sum import content_sum, is_summable
from pte_tracking._snapshots.module_tree import ModuleTree

_logger = logging.getLogger("pte_tracking")
_MAX_NAMES = 5


def sum_unsaved(models: Mapping[str, ModuleTree]) -> dict[str, Tensor]:
    """Return a sum of the content of each buffer that is not persistent, by name, such as ``main/cache``.

    Args:
        models: Modules of each model by name.
    """
    return {name: content_sum(buffer) for name, buffer in _unsaved_buffers(models)}


def report_unrestored(models: Mapping[str, ModuleTree], saved: Mapping[str, Tensor]) -> None:
    """Log the buffers whose content differs from that at the time of the snapshot.

    Args:
        models: Modules of each restored model by name.
        saved: The sums in the snapshot.
    """
    differing = [
        name
        for name, value in sum_unsaved(models).items()
        if name in saved and not torch.equal(value.cpu(), saved[name])
    ]
    if not differing:
        return
    more = f" and {len(differing) - _MAX_NAMES} more" if len(differing) > _MAX_NAMES else ""
    _logger.warning(
        "resume: buffers with persistent=False are not part of snapshots and differ from those of the snapshot: %s%s. "
        "Register them with persistent=True to restore them.",
        ", ".join(map(repr, differing[:_MAX_NAMES])),
        more,
    )


def _unsaved_buffers(models: Mapping[str, ModuleTree]) -> Iterator[tuple[str, Tensor]]:
    for name, tree in models.items():
        for path, module in tree.modules.items():
            for key in module._non_persistent_buffers_set:
                buffer = module._buffers.get(key)
                if buffer is not None and is_summable(buffer) and not is_sharded(buffer):
                    yield f"{name}/{path}.{key}" if path else f"{name}/{key}", buffer
