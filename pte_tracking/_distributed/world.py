"""The processes that train together, by ``torch.distributed``: which one this is, and what they tell each other.

They talk over a group of their own on the host (gloo), apart from the gradients: a tensor of the training never waits
for a word of ours, and nothing here touches a device. The messages between them are pickled, as in torch's own
collectives of objects: they come from processes of the same training, never from a file.
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
_WARNING_DELAY = timedelta(seconds=60)  # that ranks may be late before it is said
_MAX_DIFFERENCES = 20
_world_count = 0


class World:
    """One process among those that train together. Alone, it asks nobody, and every answer is its own.

    All ranks make the same calls in the same order, but for :meth:`first`'s function.

    Args:
        rank: This process's number, from 0.
        size: How many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._group: dist.ProcessGroup | None = None
        self._snapshots: World | None = None

    @classmethod
    def current(cls) -> World:
        """The one that ``torch.distributed`` knows.

        Raises:
            RuntimeError: The process was started as one of several, but they are not connected yet.
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        size = os.environ.get("WORLD_SIZE", "1")
        if size not in ("", "0", "1"):
            raise RuntimeError(
                f"this process was started as one of WORLD_SIZE={size}, but torch.distributed is not initialized; call "
                "torch.distributed.init_process_group() before the manager is made (or, where every process is to "
                "train on its own, unset WORLD_SIZE)"
            )
        return cls()

    @property
    def is_single_process(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def join(self) -> None:
        """Connect with the others, once."""
        if self._group is not None or not (dist.is_available() and dist.is_initialized()):
            return
        # One process of torch.distributed gets its group too: shards are written over one, and the script's own may
        # know devices only.
        if not self.is_single_process:
            self._wait_for_all()
        timeout = _configured_timeout()
        self._group = dist.new_group(backend="gloo", timeout=timeout)
        self._snapshots = World(self.rank, self.size)
        self._snapshots._group = dist.new_group(backend="gloo", timeout=timeout)

    @property
    def snapshot_world(self) -> World:
        """The same processes on a line of their own, for threads that write snapshots."""
        return self._snapshots or self

    @property
    def group(self) -> dist.ProcessGroup | None:
        """The connection, for torch's own calls; None without ``torch.distributed``."""
        return self._group

    def all_gather(self, topic: str, value: _T) -> list[_T]:
        """What every rank has to say, by rank.

        Args:
            topic: What it is about.
            value: What this rank says.

        Raises:
            RuntimeError: Another rank is about something else.
        """
        if self.is_single_process:
            return [value]
        entries: list[Any] = [None] * self.size
        dist.all_gather_object(entries, (topic, value), group=self._group)
        topics = [entry_topic for entry_topic, _ in entries]
        if set(topics) != {topic}:
            calls = ", ".join(f"rank {rank} at {entry_topic}" for rank, entry_topic in enumerate(topics))
            raise RuntimeError(
                f"the ranks went different ways: {calls}; each has to make the same calls of the manager"
            )
        return [entry for _, entry in entries]

    def run_on_all_ranks(self, topic: str, function: Callable[[], _T]) -> _T:
        """Do something on every rank, or on none: an error of it on one is raised on all.

        Args:
            topic: What it is.
            function: Does it.

        Returns:
            What came of it here.
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
        return cast(_T, result)  # it has returned

    def check_consistent(self, topic: str, values: Mapping[str, object]) -> None:
        """Check that all ranks agree on something.

        Raises:
            ValueError: They do not; raised on all of them, with who differs from rank 0 in what.
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
                f"the ranks do not agree, at {topic}; give the same on all of them:\n  "
                + "\n  ".join(differing[:_MAX_DIFFERENCES])
                + more
            )

    def run_on_rank_zero(self, topic: str, function: Callable[[], _T]) -> _T:
        """Do something on rank 0 alone, and know what came of it on all ranks.

        Args:
            topic: What it is.
            function: Does it; an error of it is raised on every rank.
        """
        if self.is_single_process:
            return function()
        result: list[_T] = [self.run_on_all_ranks(topic, function if self.rank == 0 else _return_none)]
        dist.broadcast_object_list(result, src=0, group=self._group)
        return result[0]

    def broadcast_flag(self, flag: bool) -> bool:
        """Rank 0's answer to a question that each rank has answered for itself."""
        if self.is_single_process:
            return flag
        tensor = torch.tensor(bool(flag))  # whatever a trigger of the user's returns
        dist.broadcast(tensor, src=0, group=self._group)
        return bool(tensor)

    def any_rank(self, flag: bool) -> bool:
        """Whether a rank says yes."""
        return flag if self.is_single_process else bool(self.all_reduce_sum([flag])[0])

    def all_reduce_sum(self, numbers: Iterable[float]) -> list[float]:
        """Sums over all ranks in double precision, the same to the last bit on each; one collective."""
        sums = torch.tensor([*numbers], dtype=torch.float64)
        if not self.is_single_process:
            dist.all_reduce(sums, group=self._group)
        return sums.tolist()

    def _wait_for_all(self) -> None:
        """Say who is late: where the manager is made on some ranks only, there would be silence for half an hour."""
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
                "rank %d waits for the ranks %s; the manager has to be made, and its loop begun, on every rank",
                self.rank,
                late_ranks,
            )


def _configured_timeout() -> timedelta | None:
    """How long a rank may be late, where ``init_process_group`` was told: torch's further groups do not inherit it."""
    group = dist.distributed_c10d._get_default_group()
    options = getattr(group._get_backend(group._device_types[0]), "options", None)  # not every backend has them
    timeout: timedelta | None = getattr(options, "_timeout", None)
    return None if timeout == dist.distributed_c10d._get_default_timeout(dist.get_backend()) else timeout


def _return_none() -> Any:
    return None


SINGLE_PROCESS = World()
