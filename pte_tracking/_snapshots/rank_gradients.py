"""Accumulated gradients that differ between ranks, as within ``no_sync()`` of ``DistributedDataParallel``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pte_tracking._distributed.world import World

_logger = logging.getLogger("pte_tracking")

Gradients = dict[str, Tensor]


def local_gradients(state: Mapping[str, Any], world: World) -> dict[str, Gradients]:
    """Return the gradients that this rank restores, by the name of the optimizer.

    If the world size has changed, each rank restores the mean over the saved ranks, because the ranks average their
    gradients before the next step.

    Args:
        state: The state in the snapshot.
        world: The current ranks.
    """
    gradients: dict[str, Gradients] = state["gradients"]
    others = [rank["gradients"] for rank in state.get("ranks", [])]
    if world.rank and len(others) + 1 == world.size:
        others = [others[world.rank - 1]]
    elif len(others) + 1 == world.size or not any(others):
        return gradients
    names = dict.fromkeys([*gradients, *(name for other in others for name in other)])
    local = {}
    for name in names:
        rank_zero = gradients.get(name, {})
        by_rank = [_merge(rank_zero, other.get(name, {})) for other in others]
        is_same_size = len(state["ranks"]) + 1 == world.size
        local[name] = by_rank[0] if is_same_size else _mean([rank_zero, *by_rank])
    return local


def _merge(rank_zero: Gradients, own: Mapping[str, Tensor | None]) -> Gradients:
    return {name: tensor for name, tensor in {**rank_zero, **own}.items() if tensor is not None}


def _mean(by_rank: Sequence[Gradients]) -> Gradients:
    mean: Gradients = {}
    for name in dict.fromkeys(name for gradients in by_rank for name in gradients):
        tensors = [gradients[name] for gradients in by_rank if name in gradients]
        if any(tensor.shape != tensors[0].shape for tensor in tensors):
            _logger.warning(
                "resume: the accumulated gradient of %r is in shards of another world size and is not restored.", name
            )
            continue
        total = tensors[0].clone()
        for tensor in tensors[1:]:
            total += tensor
        mean[name] = total / len(by_rank)
    return mean
