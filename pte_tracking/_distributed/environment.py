"""Which of the processes that train together this one is, told without importing torch."""

from __future__ import annotations

import os
import sys
from typing import Any


def rank() -> int:
    """Its number: what ``torch.distributed`` knows, else ``RANK`` as torchrun sets it, else 0."""
    distributed = _distributed()
    return _number("RANK", 0) if distributed is None else int(distributed.get_rank())


def size() -> int:
    """How many they are: what ``torch.distributed`` knows, else ``WORLD_SIZE`` as torchrun sets it, else 1."""
    distributed = _distributed()
    return _number("WORLD_SIZE", 1) if distributed is None else int(distributed.get_world_size())


def _distributed() -> Any:
    found = sys.modules.get("torch.distributed")  # whoever is connected by it has imported it
    return found if found is not None and found.is_available() and found.is_initialized() else None


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
