"""Optimizers in ``ZeroRedundancyOptimizer``, whose ranks each have the state of a part of the parameters."""

from __future__ import annotations

import sys
from typing import Any, cast

import torch.distributed as dist


def is_zero_redundancy(optimizer: object) -> bool:
    """Return whether an optimizer is a ``ZeroRedundancyOptimizer``."""
    # A program that uses the class has imported it.
    module = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    return module is not None and isinstance(optimizer, module.ZeroRedundancyOptimizer)


def gather_state(optimizer: Any) -> dict[str, Any]:
    """Return the state of all parameters on rank 0, and an empty one on other ranks. All ranks call this.

    Args:
        optimizer: The ``ZeroRedundancyOptimizer``.
    """
    optimizer.consolidate_state_dict(to=0)
    if dist.get_rank(optimizer.process_group) != 0:
        return {}
    state = optimizer.state_dict()
    optimizer._all_state_dicts = []  # The optimizer would keep the states of all ranks.
    return cast("dict[str, Any]", state)
