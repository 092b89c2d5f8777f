"""Which of the processes that train together this one is."""

from __future__ import annotations

import os
import sys


def rank() -> int:
    """Its number: what ``torch.distributed`` knows, else ``RANK`` as torchrun sets it, else 0."""
    distributed = sys.modules.get("torch.distributed")  # whoever is connected by it has imported it
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    number = os.environ.get("RANK", "")
    return int(number) if number.isdecimal() else 0
