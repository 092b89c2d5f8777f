"""Which of the processes that train together this one is, told without importing torch."""

from __future__ import annotations

import os
import sys
from typing import Any


def rank() -> int:
    """Its number: what ``torch.distributed`` knows, else ``RANK`` as torchrun sets it, else 0."""
    distributed = _distributed()
    return _read_int("RANK", 0) if distributed is None else int(distributed.get_rank())


def size() -> int:
    """How many they are: what ``torch.distributed`` knows, else ``WORLD_SIZE`` as torchrun sets it, else 1."""
    distributed = _distributed()
    return _read_int("WORLD_SIZE", 1) if distributed is None else int(distributed.get_world_size())


def _distributed() -> Any:
    distributed = sys.modules.get("torch.distributed")  # whoever is connected by it has imported it
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed


def _read_int(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
