"""Rank and world size of this process, without importing torch."""

from __future__ import annotations

import os
import sys
from typing import Any


def rank() -> int:
    """Return the rank from ``torch.distributed``, from the environment variable ``RANK``, or 0."""
    distributed = _distributed()
    return _read_int("RANK", 0) if distributed is None else int(distributed.get_rank())


def size() -> int:
    """Return the world size from ``torch.distributed``, from the environment variable ``WORLD_SIZE``, or 1."""
    distributed = _distributed()
    return _read_int("WORLD_SIZE", 1) if distributed is None else int(distributed.get_world_size())


def _distributed() -> Any:
    distributed = sys.modules.get("torch.distributed")  # A process that has initialized it has imported it.
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed


def _read_int(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
