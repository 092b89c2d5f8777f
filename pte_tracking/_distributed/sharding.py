"""Tensors that lie in shards on several ranks: torch's DTensor, as ``fully_shard`` makes of parameters."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which each rank may hold a part."""
    return hasattr(
        tensor, "full_tensor"
    )  # its module would take half a second to import, and is there if there are any


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor; one that lies in shards put together, for which all ranks have to ask."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """A tensor; of one that lies in shards, the part of this rank."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor
