"""Batches of an interrupted pass, which are read again to continue after them."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

_END: Any = object()
#: Parts of the names of threads of torch, which transfer batches and draw no random numbers.
_TRANSFER_THREADS = ("QueueFeederThread", "_pin_memory_loop")


class Rereading(NamedTuple):
    """Batches that were read again.

    Attributes:
        number: Number of batches, fewer than required if the pass has ended.
        last: The last batch; None if there is none.
        seconds: Time that reading took, in seconds.
    """

    number: int
    last: Any
    seconds: float


def read_again(batches: Iterator[Any], count: int) -> Rereading:
    """Read and discard a number of batches.

    Args:
        batches: The batches of the pass.
        count: Number of batches to read.
    """
    begin, last = time.perf_counter(), None
    for number in range(count):
        batch = next(batches, _END)
        if batch is _END:
            return Rereading(number, last, time.perf_counter() - begin)
        last = batch
    return Rereading(count, last, time.perf_counter() - begin)


def is_read_ahead(others: Collection[threading.Thread]) -> bool:
    """Whether a loader reads batches ahead of the loop, in a thread of its own.

    Args:
        others: Threads that ran before the pass.
    """
    new = [thread.name for thread in threading.enumerate() if thread not in others]
    return any(not any(part in name for part in _TRANSFER_THREADS) for name in new)
