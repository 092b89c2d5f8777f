"""Scenarios of the data on several ranks."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pte_tracking import extensions
from tests.ranks.components import make_manager


def resume_with_other_data_on_one_rank(folder: Path) -> Any:
    """Resume in mid-epoch with equal data, and with other data on rank 1, and return the messages of both."""
    rank = dist.get_rank()
    data = [torch.full((2,), 10.0 * rank + index) for index in range(4)]
    _train(folder, data, iterations=3)
    return [_train(folder, data, iterations=1), _train(folder, data if rank == 0 else data[::-1], iterations=1)]


def _train(folder: Path, data: list[torch.Tensor], iterations: int) -> list[str]:
    """Resume and train, and return the messages about the data."""
    handler = logging.handlers.BufferingHandler(1000)
    logging.getLogger("pte_tracking").addHandler(handler)
    manager = make_manager(folder / "run", extensions.snapshot(trigger=(2, "iteration")), epochs=2)
    manager.resume()
    for _, _ in zip(range(iterations), manager.batches(data), strict=False):
        with manager.run_iteration():
            pass
    manager.close()
    logging.getLogger("pte_tracking").removeHandler(handler)
    messages = [record.getMessage() for record in handler.buffer]
    return [message for message in messages if "data after the resume" in message]
