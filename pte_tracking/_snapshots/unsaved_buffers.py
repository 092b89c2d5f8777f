"""Buffers that are not persistent, which torch excludes from the state of a module."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.wrappers import bare_name
from pte_tracking._snapshots.content_sum import content_sum, is_summable

_logger = logging.getLogger("pte_tracking")
_MAX_NAMES = 5


def sum_unsaved(models: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a sum of the content of each buffer that is not persistent, by name, such as ``main/cache``.

    Args:
        models: Models by name.
    """
    return {name: content_sum(buffer) for name, buffer in _unsaved_buffers(models)}


def report_unrestored(models: Mapping[str, Any], saved: Mapping[str, Tensor]) -> None:
    """Log the buffers whose content differs from that at the time of the snapshot.

    Args:
        models: The restored models by name.
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


def _unsaved_buffers(models: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, model in models.items():
        if not isinstance(model, nn.Module):
            continue
        for path, module in model.named_modules():
            for key in module._non_persistent_buffers_set:
                buffer = module._buffers.get(key)
                if is_summable(buffer) and not is_sharded(buffer):
                    yield f"{name}/{bare_name(model, f'{path}.{key}' if path else key)}", buffer
