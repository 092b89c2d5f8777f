"""Communication between the ranks of a training.

Messages use separate process groups on the host (gloo), not the group of the gradients. They never delay a tensor of
the training and never use a device. Messages are pickled, as in the object collectives of torch. They come from
processes of the same training, never from a file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

_T = TypeVar("_T")

_logger = logging.getLogger("pte_tracking")
_WARNING_DELAY = timedelta(seconds=60)  # before a warning names the ranks that are late
_MAX_DIFFERENCES = 20
_world_count = 0


class World:
    """Ranks of a training, seen from one of them. In a single process, no call communicates.

    All ranks have to make the same calls in the same order.

    Args:
        rank: Rank of this process, from 0.
        size: World size.

    Attributes:
        rank: Rank of this process.
        size: World size.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._group: dist.ProcessGroup | None = None
        self._snapshots: World | None = None
        self._topics: set[str] = set()

    @classmethod
    def current(cls) -> World:
        """Return the world of ``torch.distributed``, or a single process if it is not initialized.

        Raises:
            RuntimeError: If ``WORLD_SIZE`` is greater than 1 but ``torch.distributed`` is not initialized.
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        size = os.environ.get("WORLD_SIZE", "1")
        if size not in ("", "0", "1"):
            raise RuntimeError(
                f"The environment has WORLD_SIZE={size}, but torch.distributed is not initialized. Call "
                "torch.distributed.init_process_group() before you create the manager. If every process trains "
                "independently, unset WORLD_SIZE."
            )
        return cls()

    @property
    def is_single_process(self) -> bool:
        """Whether the world has only one process."""
        return self.size == 1

    def join(self) -> None:
        """Create the process groups. Later calls do nothing."""
        if self._group is not None or not (dist.is_available() and dist.is_initialized()):
            return
        # A world of one process needs its group, too: shards are written with a group, and the default group may
        # support devices only.
        if not self.is_single_process:
            self._wait_for_all()
        timeout = _configured_timeout()
        self._group = dist.new_group(backend="gloo", timeout=timeout)
        self._snapshots = World(self.rank, self.size)
        self._snapshots._group = dist.new_group(backend="gloo", timeout=timeout)

    @property
    def snapshot_world(self) -> World:
        """The same ranks with a separate process group, for threads that write snapshots."""
        return self._snapshots or self

    @property
    def group(self) -> dist.ProcessGroup | None:
        """Process group for calls of torch. None if ``torch.distributed`` is not initialized."""
        return self._group

    def is_first(self, topic: str) -> bool:
        """Return whether this is the first call for an operation that is necessary only once.

        Args:
            topic: Name of the operation.
        """
        is_first = topic not in self._topics
        self._topics.add(topic)
        return is_first

    def all_gather(self, topic: str, value: _T) -> list[_T]:
        """Gather a value of each rank on every rank.

        Args:
            topic: Name of the operation, which has to be equal on all ranks. Error messages contain it.
            value: The value of this rank. It is pickled.

        Returns:
            The values in the order of ranks.

        Raises:
            RuntimeError: If another rank passes another topic.
        """
        if self.is_single_process:
            return [value]
        entries: list[Any] = [None] * self.size
        dist.all_gather_object(entries, (topic, value), group=self._group)
        topics = [entry_topic for entry_topic, _ in entries]
        if set(topics) != {topic}:
            calls = ", ".join(f"rank {rank} at {entry_topic}" for rank, entry_topic in enumerate(topics))
            raise RuntimeError(
                f"Ranks made different calls: {calls}. Make the same calls to the manager on every rank."
            )
        return [entry for _, entry in entries]

    def run_on_all_ranks(self, topic: str, function: Callable[[], _T]) -> _T:
        """Call a function on every rank. If it fails on one rank, all ranks raise an error.

        Args:
            topic: Name of the operation.
            function: The function.

        Returns:
            The return value on this rank.

        Raises:
            RuntimeError: If the function failed on another rank. An error on this rank is raised unchanged.
        """
        if self.is_single_process:
            return function()
        problem, result = None, None
        try:
            result = function()
        except Exception as error:
            problem = error
        errors = self.all_gather(topic, problem and f"{type(problem).__name__}: {problem}")
        if problem is not None:
            raise problem
        for rank, error_text in enumerate(errors):
            if error_text is not None:
                raise RuntimeError(f"on rank {rank}: {error_text}")
        return cast(_T, result)

    def check_consistent(self, topic: str, values: Mapping[str, object]) -> None:
        """Check that all ranks pass equal values.

        Args:
            topic: Name of the operation.
            values: The values of this rank by name. They are pickled.

        Raises:
            ValueError: If values differ from those of rank 0. Raised on every rank, with up to 20 differences.
        """
        rank_zero, *others = self.all_gather(topic, values)
        differing = [
            f"{name}: rank {rank} has {other[name]!r}, rank 0 has {rank_zero[name]!r}"
            for rank, other in enumerate(others, 1)
            for name in rank_zero
            if other[name] != rank_zero[name]
        ]
        if differing:
            more = f"\n  and {len(differing) - _MAX_DIFFERENCES} more" if len(differing) > _MAX_DIFFERENCES else ""
            raise ValueError(
                f"Ranks disagree at {topic}. Pass the same values on every rank:\n  "
                + "\n  ".join(differing[:_MAX_DIFFERENCES])
                + more
            )

    def run_on_rank_zero(self, topic: str, function: Callable[[], _T]) -> _T:
        """Call a function on rank 0 and broadcast its result.

        Args:
            topic: Name of the operation.
            function: The function. If it fails, every rank raises an error.

        Returns:
            The return value on rank 0.

        Raises:
            RuntimeError: If the function failed, on other ranks. Rank 0 raises the error unchanged.
        """
        if self.is_single_process:
            return function()
        result: list[_T] = [self.run_on_all_ranks(topic, function if self.rank == 0 else _return_none)]
        dist.broadcast_object_list(result, src=0, group=self._group)
        return result[0]

    def broadcast_flag(self, flag: bool) -> bool:
        """Broadcast the flag of rank 0."""
        if self.is_single_process:
            return flag
        tensor = torch.tensor(bool(flag))  # A trigger may return any object.
        dist.broadcast(tensor, src=0, group=self._group)
        return bool(tensor)

    def any_rank(self, flag: bool) -> bool:
        """Return whether the flag is true on any rank."""
        return flag if self.is_single_process else bool(self.all_reduce_sum([flag])[0])

    def all_reduce_sum(self, numbers: Iterable[float]) -> list[float]:
        """Sum numbers over all ranks with one collective operation.

        Args:
            numbers: The numbers of this rank. All ranks pass equally many.

        Returns:
            The sums in double precision. They are bitwise equal on all ranks.
        """
        sums = torch.tensor([*numbers], dtype=torch.float64)
        if not self.is_single_process:
            dist.all_reduce(sums, group=self._group)
        return sums.tolist()

    def _wait_for_all(self) -> None:
        """Wait for all ranks, and log which ranks are late. Creating a group would wait silently for half an hour."""
        global _world_count
        _world_count += 1
        store = dist.distributed_c10d._get_default_store()
        names = [f"pte_tracking/{_world_count}/{rank}" for rank in range(self.size)]
        store.set(names[self.rank], "here")
        try:
            store.wait(names, _WARNING_DELAY)
        except dist.DistError:
            late_ranks = [rank for rank, name in enumerate(names) if not store.check([name])]
            _logger.warning(
                "Rank %d is waiting for ranks %s. Create the manager and start its loop on every rank.",
                self.rank,
                late_ranks,
            )


def _configured_timeout() -> timedelta | None:
    """Return the timeout passed to ``init_process_group``, or None. New groups of torch do not inherit it."""
    group = dist.distributed_c10d._get_default_group()
    options = getattr(group._get_backend(group._device_types[0]), "options", None)  # Some backends have no options.
    timeout: timedelta | None = getattr(options, "_timeout", None)
    return None if timeout == dist.distributed_c10d._get_default_timeout(dist.get_backend()) else timeout


def _return_none() -> Any:
    return None


SINGLE_PROCESS = World()
