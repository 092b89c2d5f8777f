"""Comparison of the ranks, where a snapshot contains the state of rank 0 only."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.world import World
from pte_tracking._distributed.wrappers import bare_name
from pte_tracking._snapshots.content_sum import content_sum, is_summable, to_numbers
from pte_tracking._snapshots.plain_state import map_tensors

_logger = logging.getLogger("pte_tracking")
_MAX_NAMES = 5


def report_differing_ranks(state: Mapping[str, Any], models: Mapping[str, nn.Module], world: World) -> None:
    """Log which parameters and optimizer states differ between ranks. Call this on every rank.

    Buffers, and tensors that only some ranks have, are not compared.

    Args:
        state: The plain state of this rank.
        models: The models by name.
        world: The ranks.
    """
    if world.is_single_process:
        return
    sums = to_numbers(dict(_shared_sums(state, models)))
    rank_zero, *others = world.all_gather("comparison of the ranks", sums)
    differing = {
        name: ranks
        for name in rank_zero
        if (
            ranks := [
                rank for rank, other in enumerate(others, 1) if other.get(name, rank_zero[name]) != rank_zero[name]
            ]
        )
    }
    if not differing or world.rank:
        return
    texts = [f"{name} (rank {', '.join(map(str, ranks))})" for name, ranks in list(differing.items())[:_MAX_NAMES]]
    more = f" and {len(differing) - _MAX_NAMES} more" if len(differing) > _MAX_NAMES else ""
    _logger.warning(
        "snapshot: ranks differ from rank 0 in %s%s. The snapshot contains the state of rank 0, which a resume "
        "gives to all ranks. Wrap models in DistributedDataParallel, or seed all ranks equally.",
        ", ".join(texts),
        more,
    )


def _shared_sums(state: Mapping[str, Any], models: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    own = {f"models/{name}/{bare_name(model, path)}" for name, model in models.items() for path in _buffer_names(model)}
    tensors: dict[str, Tensor] = {}

    def collect(tensor: Tensor, path: str) -> Tensor:
        tensors[path] = tensor
        return tensor

    for part in ("models", "optimizers"):
        map_tensors(state[part], collect, part)
    for path, tensor in tensors.items():
        if path not in own and not is_sharded(tensor) and is_summable(tensor):
            yield path, content_sum(tensor)


def _buffer_names(model: object) -> list[str]:
    return [path for path, _ in model.named_buffers()] if isinstance(model, nn.Module) else []
