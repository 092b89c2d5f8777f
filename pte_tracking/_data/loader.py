"""Data loaders that resume at the exact batch.

The position of a loader is the state at the start of a pass, with all objects that the loader refers to, and the number
of batches taken since. To resume, the pass is started again from that state, and the batches already taken are loaded
and discarded, so workers draw the same random numbers as before. A loader with ``state_dict`` and
``load_state_dict``, such as StatefulDataLoader of torchdata, restores its own state instead, which is fast.

Resuming is exact for all loaders whose order and content follow from that state. This includes samplers and datasets of
torch, random augmentation in the training process or in workers, separate generators of torch, NumPy, and Python,
``set_epoch``, and objects with ``state_dict`` and ``load_state_dict``. Resuming is not exact for

- random numbers drawn in *persistent* workers after their first pass, because they depend on all earlier passes, and
  those drawn in the workers of a StatefulDataLoader, which restarts them. The order is exact in both cases.
- a sampler, or an iterable dataset without workers, that draws from the same generator as the training and keeps the
  numbers, for example in a shuffle buffer. With workers or a separate generator it is exact.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, Generic, TypeVar, cast

import torch
from torch.utils.data import DataLoader

from pte_tracking._data.data_check import DataCheck
from pte_tracking._data.loader_messages import LoaderMessages
from pte_tracking._data.loader_parts import LoaderParts, PartsState
from pte_tracking._data.loader_state import DataState, LoaderState
from pte_tracking._data.position import LoaderOptions, keeps_workers, length_of, options_of, resumed_position
from pte_tracking._data.rereading import is_read_ahead, read_again
from pte_tracking._data.stateful_loader import (
    StatefulLoader,
    check_workers,
    forget_iterators,
    is_node_loader,
    is_stateful,
    load_position,
    reports_state,
    restores_exactly,
)
from pte_tracking._snapshots import rng
from pte_tracking._snapshots.plain_state import to_plain

_Batch = TypeVar("_Batch")

_END: Any = object()


class ResumableLoader(Generic[_Batch]):
    """Loader whose position can be saved and restored.

    Each iteration over it is one pass. The first iteration after a resume is the rest of the interrupted pass.

    Args:
        loader: A DataLoader or any other iterable that supports repeated iteration.
        name: Name of the loader, for messages.
        constructed: Counters of state objects at their construction, by object identity.

    Attributes:
        loader: The loader.
        check: Check of the data after a resume.
        expects_same_batches: Whether a restored position is that of the same batches, as far as is known.
    """

    def __init__(
        self, loader: Iterable[_Batch], name: str = "main", constructed: Mapping[int, dict[str, Any]] | None = None
    ) -> None:
        self.loader = loader
        self.check = DataCheck(loader, name)
        self.expects_same_batches = False
        self._name = name
        self._messages = LoaderMessages(name, type(loader).__name__)
        self._parts = LoaderParts(loader, constructed or {}, self._messages)
        self._passes = 0
        self._taken = 0
        self._start: DataState | None = None
        self._workers_live = False
        self._keeps_workers = keeps_workers(loader)
        self._is_stateful = is_stateful(loader)
        self._is_probed = False
        self._has_begun = self._has_failed = False
        self._expected_length: int | None = None
        self._saved: LoaderState | None = None
        self._resumed_taken = 0
        self._restores_own_state = False
        self._unrestored: list[str] = []

    def __len__(self) -> int:
        return len(cast(Sized, self.loader))

    def __iter__(self) -> Iterator[_Batch]:
        if not self._has_begun:
            self._has_begun = True
            forget_iterators(self.loader)
        saved, self._saved = self._saved, None
        check = self.check
        try:
            batches = self._start_pass() if saved is None else self._resume_pass(saved)
            batch = next(batches, _END)
            if batch is _END and saved is not None and saved["taken"]:
                # The snapshot was saved after the last batch of a pass whose length was unknown.
                self._end_pass()
                batches = self._start_pass()
                batch = next(batches, _END)
            self._check_unrestored(None)
            length = length_of(self.loader)
            if self._expected_length is None:
                self._expected_length = length
            check.begin_pass()
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
        except Exception:
            self._has_failed = True
            raise
        finally:
            check.release_batch()
        self._end_pass()

    @property
    def resumed_taken(self) -> int | None:
        """Number of batches of the interrupted pass that are not yielded again; None if no position is restored."""
        return None if self._saved is None else self._resumed_taken

    @property
    def is_rescaled(self) -> bool:
        """Whether the restored position is another number of batches than the saved one."""
        return self._saved is not None and self._resumed_taken != self._saved["taken"]

    def leave_pass(self) -> None:
        """End the current pass early. The next iteration starts another one."""
        self._taken, self._start = 0, None
        self._workers_live = self._keeps_workers

    def state_dict(self) -> LoaderState:
        """Return the position after the last yielded batch."""
        if self._saved is not None:
            return self._saved
        self.check.is_due = self._passes > 0
        current, start = self._parts.state(), self._start
        if self._passes:  # Before the first pass, some objects have no state yet.
            self._parts.report_unsaved()
        if start is not None:
            start = DataState(everywhere=start["everywhere"], parts=self._parts.changed(start["parts"], current))
            current = self._parts.changed(current, start["parts"])
        else:
            current = self._parts.changed(current)
        own_state = self._own_state()
        return LoaderState(
            passes=self._passes,
            taken=self._taken,
            start=start,
            parts=current,
            workers_live=self._workers_live,
            loader=own_state,
            last=self.check.digest_last() if self._taken and own_state is None else None,
            options=options_of(self.loader)._asdict(),
        )

    def load_state_dict(self, state: LoaderState, is_resized: bool = False) -> None:
        """Continue from a position at the next iteration. The caller restores the global random generators.

        Args:
            state: The position.
            is_resized: Whether the world size has changed. The position is then rescaled to the same fraction of a
                pass.

        Raises:
            ValueError: If the loader restores its own state, and cannot do so with another number of workers.
        """
        if state["passes"]:
            self._parts.set_epoch(state["passes"] - 1)  # The length may depend on it.
        if not restores_exactly(self.loader, state):
            self._parts.restore_integers(state["parts"], state["start"]["parts"] if state["start"] else None)
        saved, current = LoaderOptions(**cast(Any, state["options"])), options_of(self.loader)
        if state["parts"]["objects"]:  # The length may depend on a state that is not restored yet.
            saved = saved._replace(length=current.length)
        is_same = not is_resized and saved.batch_size == current.batch_size
        self.expects_same_batches = is_same and saved.length == current.length
        self._restores_own_state = is_same and restores_exactly(self.loader, state)
        if self._restores_own_state and saved.workers != current.workers:
            check_workers(self._name, self.loader, saved, current, state["taken"])
            self._restores_own_state = False
            self._messages.changed_workers(saved, current)
            saved = saved._replace(workers=current.workers)  # reported
        self._restore_parts(state)
        self._saved = state
        self._resumed_taken = resumed_position(self._name, state["taken"], saved, current, is_resized)

    def _restore_parts(self, state: LoaderState) -> None:
        if not self._restores_own_state:
            start = state["start"]
            self._unrestored = self._parts.restore(start["parts"] if start else state["parts"])
        if state["loader"] is not None and not self._is_stateful:
            self._messages.not_stateful()

    def _check_unrestored(self, parts: PartsState | None) -> None:
        """Warn about objects whose state was not restored and which were not created again with an equal state."""
        if self._unrestored and (paths := self._parts.differing(self._unrestored, parts)):
            self._messages.unrestored(paths)
        self._unrestored = []

    def _own_state(self) -> dict[str, Any] | None:
        """Return the state of a stateful loader; None for other loaders, or if it cannot be saved."""
        # Before the first pass, state_dict() of some loaders would start it.
        # After an error, that of some loaders is behind the batch that failed.
        if not self._passes or not self._is_stateful or self._has_failed:
            return None
        try:
            return cast(dict[str, Any], to_plain(cast(StatefulLoader, self.loader).state_dict(), "state_dict()"))
        except Exception as error:
            self._is_stateful = False
            self._messages.unsaved(error)
            return None

    def _start_pass(self) -> Iterator[_Batch]:
        self._parts.set_epoch(self._passes)
        self._passes += 1
        self._taken, self._has_failed = 0, False
        self._start = DataState(everywhere=rng.get_state(), parts=self._parts.start_state())
        return self._open()

    def _open(self) -> Iterator[_Batch]:
        """Start to iterate over the loader."""
        if not self._is_stateful:
            return iter(self.loader)
        start = DataState(everywhere=rng.get_state(), parts=self._parts.state())
        # A stateful loader draws more numbers from the global generator when it starts after a resume. Later numbers
        # must not depend on this. One number is drawn so that passes start from different states.
        torch.empty((), dtype=torch.int64).random_()
        current = rng.get_state()
        batches = iter(self.loader)
        rng.set_state(current)
        if self._is_probed or reports_state(cast(StatefulLoader, self.loader)):
            self._is_probed = True
            return batches
        self._is_stateful = False
        self._restore(start)
        return iter(self.loader)

    def _resume_pass(self, saved: LoaderState) -> Iterator[_Batch]:
        current = rng.get_state()
        self._passes, self._taken = saved["passes"], self._resumed_taken
        self._workers_live = saved["workers_live"]
        self._start = start = saved["start"]
        if self._restores_own_state:
            return self._resume_own_state(saved, current)
        if saved["workers_live"] and self._keeps_workers:
            self._start_workers()
        if start is None:
            return self._begin_pass(DataState(everywhere=current, parts=saved["parts"]))
        if not self._taken:  # The first batch raised an error. A sampler may draw its numbers only for this batch.
            self._passes -= 1
            return self._begin_pass(start)
        threads = threading.enumerate()
        self._restore(start)
        batches = self._open_again()
        if not self._skip(batches, is_last_try=not self._parts.has_loaded):
            # An object took its state as the end of a pass.
            self._restore(start, loads_objects=False)
            batches = self._open_again()
            self._skip(batches, is_last_try=True)
        self._check_unrestored(saved["parts"])
        rng.set_state(current)
        if not is_read_ahead(threads):  # Else the states at the snapshot are those of a later batch.
            self._parts.restore_unmoved(saved["parts"], start["parts"])
        return batches

    def _begin_pass(self, state: DataState) -> Iterator[_Batch]:
        """Start the pass that followed a snapshot between two passes."""
        self._restore(state)
        batches = self._start_pass()
        if not self._parts.has_loaded:
            return batches
        if (batch := next(batches, _END)) is not _END:
            return itertools.chain([batch], batches)
        self._restore(state, loads_objects=False)  # An object took its state as the end of a pass.
        self._passes -= 1
        return self._start_pass()

    def _open_again(self) -> Iterator[_Batch]:
        self._parts.set_epoch(self._passes - 1)
        return self._open()

    def _resume_own_state(self, saved: LoaderState, current: rng.RandomState) -> Iterator[_Batch]:
        """Continue a pass of a stateful loader, or start the next one if the pass has ended."""
        start = saved["start"]
        self._is_probed = True
        reads_again = isinstance(self.loader, DataLoader) or is_node_loader(self.loader)
        if start is not None and reads_again:  # It reads the indices of its sampler again.
            rng.set_state(start["everywhere"])
            self._parts.restore_generators(start["parts"])
        # Between two passes, this consumes the end of the pass, so the next pass draws the same numbers.
        own_state = cast(dict[str, Any], saved["loader"])
        batches = load_position(self._name, cast(StatefulLoader, self.loader), own_state)
        rng.set_state(current)
        # Nodes read indices in the next batch or in a thread. This advances the generators to their saved states.
        if start is None or not is_node_loader(self.loader):
            self._parts.restore_generators(saved["parts"])
        return self._start_pass() if start is None else batches

    def _skip(self, batches: Iterator[Any], *, is_last_try: bool) -> bool:
        """Read the batches again that were taken before the snapshot.

        Args:
            batches: The batches of the pass.
            is_last_try: Whether to continue with the next pass if the pass ends before.

        Returns:
            Whether to continue.
        """
        count, rereading = self._taken, read_again(batches, self._taken)
        if rereading.number == count:
            self._messages.read_again(count, rereading.seconds)
            self.check.check_skipped(rereading.last, count)
        elif not is_last_try:
            return False
        elif self.expects_same_batches or rereading.number != length_of(self.loader):  # else it was reported
            self._messages.short_pass(count, rereading.number)
        self._taken = rereading.number
        return True

    def _start_workers(self) -> None:
        """Start persistent workers before the interrupted pass. Starting them draws a random number."""
        iter(self.loader)
        self._messages.restarted_workers()

    def _end_pass(self) -> None:
        if self._expected_length and 0 < self._taken != self._expected_length:
            self._messages.different_length(self._taken, self._expected_length)
            self._expected_length = 0  # reported once
        self.leave_pass()

    def _restore(self, state: DataState, *, loads_objects: bool = True) -> None:
        self._parts.restore(state["parts"], loads_objects=loads_objects)
        rng.set_state(state["everywhere"])  # Objects may draw numbers when they load their state.
