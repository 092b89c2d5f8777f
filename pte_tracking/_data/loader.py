"""Data loaders that resume at the exact batch.

The position of a loader is the random state at the start of a pass and the number of batches taken since. To resume,
the pass is started again from that random state, and the batches already taken are loaded and discarded, so that
workers draw the same random numbers as before. This takes at most the time to load one pass without training. A loader
with ``state_dict`` and ``load_state_dict``, such as StatefulDataLoader of torchdata, restores its own state instead,
which is fast.

Resuming is exact for all loaders whose order and content follow from the random state at the start of the pass. This
includes samplers and datasets of torch, random augmentation in the training process or in workers, separate generators,
and ``set_epoch``. Resuming is not exact for

- random numbers drawn in *persistent* workers after their first pass, because they depend on all earlier passes, and
  those drawn in the workers of a StatefulDataLoader, which restarts them. The order is exact in both cases.
- a sampler, or an iterable dataset without workers, that draws from the same generator as the training and keeps the
  numbers, for example in a shuffle buffer. With workers or a separate generator it is exact.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sized
from typing import Any, Generic, TypedDict, TypeVar, cast

import torch
from torch import Tensor

from pte_tracking._data.batch_digest import BatchDigest
from pte_tracking._data.components import (
    RandomStates,
    StatefulLoader,
    find_components,
    find_generators,
    get_random_states,
    keeps_workers,
    length_of,
    set_random_states,
)
from pte_tracking._data.data_check import DataCheck
from pte_tracking._distributed import environment
from pte_tracking._snapshots import rng

_Batch = TypeVar("_Batch")

_logger = logging.getLogger("pte_tracking")
_END: Any = object()


class LoaderState(TypedDict):
    """Position in the data.

    Attributes:
        passes: Number of started passes.
        taken: Number of batches taken in the current pass; 0 between two passes.
        start: Random states at the start of the current pass. None between two passes and for stateful loaders.
        own: Current states of the generators in the loader.
        workers_live: Whether persistent workers were running before the current pass, or are running between passes.
        loader: State of a stateful loader, None for other loaders.
        length: Number of batches in a pass, None if unknown.
        last: Digest of the last batch taken, if a resume loads it again. None otherwise.
    """

    passes: int
    taken: int
    start: RandomStates | None
    own: list[Tensor]
    workers_live: bool
    loader: dict[str, Any] | None
    length: int | None
    last: BatchDigest | None


class ResumableLoader(Generic[_Batch]):
    """Loader whose position can be saved and restored.

    Each iteration over it is one pass. The first iteration after a resume is the rest of the interrupted pass.

    Args:
        loader: A DataLoader or any other iterable that supports repeated iteration.

    Attributes:
        loader: The loader.
        check: Check of the data after a resume.
    """

    def __init__(self, loader: Iterable[_Batch]) -> None:
        self.loader = loader
        self.check = DataCheck(loader)
        self._passes = 0
        self._taken = 0
        self._start: RandomStates | None = None
        self._workers_live = False
        self._saved: LoaderState | None = None
        self._is_resized = False

    def __len__(self) -> int:
        return len(cast(Sized, self.loader))

    def __iter__(self) -> Iterator[_Batch]:
        saved, self._saved = self._saved, None
        batches = self._start_pass() if saved is None else self._resume_pass(saved)
        length = length_of(self.loader)
        check = self.check
        check.begin_pass()
        try:
            batch = next(batches, _END)
            while batch is not _END:
                self._taken += 1
                if check.is_due:
                    check.check_first(batch, self._taken)
                # The pass ends before its last batch is yielded. A snapshot of that iteration is then between two
                # passes: it has no batches to load again, and includes numbers that a sampler draws at its end.
                is_expected_last = self._taken == length
                following = next(batches, _END) if is_expected_last else None
                if following is _END:
                    self._end_pass()
                check.batch = batch
                yield batch
                check.batch = None
                batch = following if is_expected_last else next(batches, _END)
        finally:
            check.release_batch()
        self._end_pass()

    def state_dict(self) -> LoaderState:
        """Return the position after the last yielded batch."""
        if self._saved is not None:
            return self._saved
        self.check.is_due = self._passes > 0
        is_stateful = isinstance(self.loader, StatefulLoader)
        return LoaderState(
            passes=self._passes,
            taken=self._taken,
            start=self._start,
            own=[generator.get_state() for generator in find_generators(self.loader)],
            workers_live=self._workers_live,
            # Before the first pass, state_dict() of some loaders would start it.
            loader=cast(StatefulLoader, self.loader).state_dict() if self._passes and is_stateful else None,
            length=length_of(self.loader),
            last=self.check.digest_last() if self._taken and not is_stateful else None,
        )

    def load_state_dict(self, state: LoaderState, is_resized: bool = False) -> None:
        """Continue from a position at the next iteration. The caller restores the global random generators.

        Args:
            state: The position.
            is_resized: Whether the world size has changed. The position is then rescaled to the same fraction of a
                pass.

        Raises:
            ValueError: If the position is of another kind of loader.
        """
        kind = type(self.loader).__name__
        if state["loader"] is not None and not isinstance(self.loader, StatefulLoader):
            raise ValueError(
                "loader: the snapshot is of a loader with state_dict() and load_state_dict(), which this "
                f"{kind} does not have. Pass the same kind of loader."
            )
        generators = find_generators(self.loader)
        if len(generators) != len(state["own"]):
            raise ValueError(
                f"loader: the snapshot is of a loader with {len(state['own'])} separate random generators, but this "
                f"{kind} has {len(generators)}. Pass the same generator= arguments."
            )
        for generator, own in zip(generators, state["own"], strict=True):
            generator.set_state(own)
        self._saved, self._is_resized = state, is_resized

    def _start_pass(self) -> Iterator[_Batch]:
        self._set_epoch(self._passes)
        self._passes += 1
        self._taken = 0
        if not isinstance(self.loader, StatefulLoader):
            self._start = get_random_states(self.loader)
            return iter(self.loader)
        # A stateful loader draws more numbers from the global generator when it starts after a resume. Later numbers
        # must not depend on this. One number is drawn so that passes start from different states.
        torch.empty((), dtype=torch.int64).random_()
        current = rng.get_state()
        batches = iter(self.loader)
        rng.set_state(current)
        return batches

    def _resume_pass(self, saved: LoaderState) -> Iterator[_Batch]:
        current = get_random_states(self.loader)
        self._passes = saved["passes"]
        self._workers_live = saved["workers_live"]
        self._taken = saved["taken"]
        if self._is_resized:
            self._taken = _rescaled_position(saved["taken"], saved["length"], length_of(self.loader))
        # The state of a stateful loader counts batches at the old world size.
        loader_state = None if self._is_resized else saved["loader"]
        if loader_state is not None:
            cast(StatefulLoader, self.loader).load_state_dict(loader_state)
            if not saved["taken"]:
                # Consume the end of the pass, so that the next pass draws the same numbers.
                iter(self.loader)
        elif saved["workers_live"] and keeps_workers(self.loader):
            self._start_workers()
        if not saved["taken"]:
            set_random_states(self.loader, current)
            return self._start_pass()
        if saved["start"] is not None:
            self._start = saved["start"]
            set_random_states(self.loader, saved["start"])
        if loader_state is None:
            self._set_epoch(self._passes - 1)
        batches = iter(self.loader)
        if loader_state is None:
            self.check.check_skipped(_skip(batches, self._taken), self._taken)
        set_random_states(self.loader, current)
        return batches

    def _start_workers(self) -> None:
        """Start persistent workers before the interrupted pass. Starting them draws a random number."""
        iter(self.loader)
        if environment.rank() == 0:
            _logger.warning(
                "loader: the persistent workers were restarted. The order of the data is exact. Random numbers that a "
                "dataset draws in the workers differ, because they depend on all earlier passes. Pass "
                "persistent_workers=False to reproduce them."
            )

    def _set_epoch(self, index: int) -> None:
        for component in find_components(self.loader):
            if hasattr(component, "set_epoch"):
                component.set_epoch(index)

    def _end_pass(self) -> None:
        self._taken, self._start = 0, None
        self._workers_live = keeps_workers(self.loader)


def _rescaled_position(taken: int, old_length: int | None, new_length: int | None) -> int:
    """Return the number of batches that are the same fraction of a pass at another world size."""
    return taken if not old_length or not new_length else taken * new_length // old_length


def _skip(batches: Iterator[Any], count: int) -> Any:
    """Load a number of batches, and return the last one."""
    batch = None
    for skipped in range(count):
        if (batch := next(batches, _END)) is _END:
            raise ValueError(
                f"loader: the snapshot was taken after {count} batches of a pass, but this pass has only {skipped}. "
                "Resume with the same data."
            )
    return batch
