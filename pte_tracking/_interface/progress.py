"""Progress of a training: iterations, epochs, and time."""

from __future__ import annotations

import logging
import time
from typing import TypedDict

from pte_tracking._distributed import environment

_logger = logging.getLogger("pte_tracking")


class ProgressState(TypedDict):
    """State of a :class:`Progress` in a snapshot.

    Attributes:
        iteration: Number of completed iterations.
        iters_per_epoch: Number of iterations per epoch; None if unknown.
        elapsed_time: Training time in seconds.
        shift: Difference between the rescaled and the actual number of iterations.
        skipped: Number of iterations by which epochs ended early.
    """

    iteration: int
    iters_per_epoch: int | None
    elapsed_time: float
    shift: int
    skipped: int


class EpochLengthError(RuntimeError):
    """Raised if epochs are counted, but the epoch length is not set."""


class Progress:
    """Counter of iterations and training time.

    Args:
        iters_per_epoch: Number of iterations per epoch; None if unknown.

    Attributes:
        iteration: Number of completed iterations.
        pending: 1 within an iteration that is not counted yet, otherwise 0.
        are_passes_aligned: Whether epochs begin with passes over the data. False if a loop over a loader started again
            within an epoch.
        skipped: Number of iterations by which epochs ended early at the current epoch length. They are part of the
            rescaled number of iterations.
    """

    def __init__(self, iters_per_epoch: int | None) -> None:
        self.iteration = 0
        self.pending = 0
        self.are_passes_aligned = True
        self.skipped = 0
        self._iters_per_epoch: int | None = None
        self._is_length_set = False
        # Difference between the number of iterations at the current epoch length and the actual number.
        self._shift = 0
        if iters_per_epoch is not None:
            self.set_iters_per_epoch("iters_per_epoch", iters_per_epoch)
        self._previous_seconds = 0.0
        self._clock_start: float | None = None

    def current_step(self) -> int:
        """Return the step of a value that is logged now: within an iteration, the number of this iteration."""
        return self.iteration + self.pending

    def set_iters_per_epoch(self, argument: str, length: int) -> None:
        """Set the epoch length, which cannot be changed afterwards.

        Args:
            argument: Name of the argument or expression that the length is from, for error messages.
            length: Number of iterations per epoch.

        Raises:
            TypeError: If the length is not an integer.
            ValueError: If the length is not positive, or differs from the one set before.
        """
        if isinstance(length, bool) or not isinstance(length, int):
            raise TypeError(f"{argument}: expected an integer, got {length!r} of type {type(length).__name__}")
        if length <= 0:
            raise ValueError(
                f"{argument}: expected at least one iteration per epoch, got {length}. "
                "Check that the data is not empty."
            )
        if self._is_length_set and self._iters_per_epoch != length:
            raise ValueError(f"{argument}: expected {self._iters_per_epoch}, the epoch length set before, got {length}")
        self._shift = self._shift_for(length, self._iters_per_epoch)
        self._iters_per_epoch, self._is_length_set = length, True

    @property
    def is_epoch_length_set(self) -> bool:
        """Whether the epoch length is fixed by an argument. A restored length may be replaced."""
        return self._is_length_set

    def epoch_at(self, iteration: int) -> int:
        """Return the epoch of an iteration at the current epoch length.

        Args:
            iteration: Number of the iteration, from 0.
        """
        return (iteration + self._shift) // self.iters_per_epoch

    def set_position(self, iteration: int, epoch: int | None) -> None:
        """Set the number of completed iterations.

        Args:
            iteration: The number of completed iterations.
            epoch: The epoch of the next iteration, from 0, to be checked; None to skip the check.

        Raises:
            ValueError: If ``iteration`` is lower than the current count, or is not in ``epoch``.
        """
        if iteration < self.iteration:
            raise ValueError(
                f"iteration: expected at least {self.iteration}, the number of completed iterations, got {iteration}. "
                "After a resume, iterate over manager.batches(loader), or start the loop at manager.iteration."
            )
        is_checked = epoch is not None and self.has_epoch_length and self.are_passes_aligned
        if is_checked and epoch != self.epoch_at(iteration):
            raise ValueError(
                f"iteration: {iteration} is in epoch {self.epoch_at(iteration)}, not {epoch}. The epoch length is "
                f"{self.iters_per_epoch}. Count iterations over all epochs: epoch * epoch_size + i."
            )
        self.iteration = iteration

    @property
    def has_epoch_length(self) -> bool:
        """Whether the epoch length is known, also if it may still change after a resume."""
        return self._iters_per_epoch is not None

    @property
    def iters_per_epoch(self) -> int:
        """Number of iterations per epoch.

        Raises:
            RuntimeError: If the epoch length is not set.
        """
        if self._iters_per_epoch is None:
            raise EpochLengthError(
                "The epoch length is not set. Iterate over manager.iterations(loader), or pass iters_per_epoch= to the "
                "manager: len(loader), or any number of iterations for a stream without a length. For a Trainer, "
                "define the property iters_per_epoch in a subclass of the updater. Or count in iterations instead of "
                "epochs, as in trigger=(1000, 'iteration')."
            )
        return self._iters_per_epoch

    def count(self, unit: str) -> tuple[int, int]:
        """Return the number of iterations per unit, and the number of completed iterations in terms of it.

        Args:
            unit: ``"epoch"`` or ``"iteration"``.

        Raises:
            RuntimeError: If the unit is the epoch, and the epoch length is not set.
        """
        if unit == "iteration":
            return 1, self.iteration
        return self._iters_per_epoch or self.iters_per_epoch, self.iteration + self._shift

    @property
    def epoch_or_none(self) -> int | None:
        """Number of completed epochs; None if the epoch length is not set."""
        length = self._iters_per_epoch
        return None if length is None else (self.iteration + self._shift) // length

    @property
    def rescaled_iteration(self) -> int:
        """Number of iterations that the completed epochs would have taken at the current epoch length.

        The epoch length changes if a training is resumed with another batch size or on another number of ranks. The
        number of completed epochs and the step counter are kept.
        """
        return self.iteration + self._shift

    @property
    def position_in_epoch(self) -> int:
        """Number of completed iterations of the current epoch."""
        return self.rescaled_iteration % self.iters_per_epoch

    @property
    def epoch(self) -> int:
        """Number of completed epochs. Before the first iteration, the epoch length may be unknown."""
        return self.rescaled_iteration and self.rescaled_iteration // self.iters_per_epoch

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last completed iteration was the last one of its epoch."""
        return self.rescaled_iteration > 0 and self.rescaled_iteration % self.iters_per_epoch == 0

    @property
    def epoch_detail(self) -> float:
        """Number of completed epochs, including the fraction of the current epoch."""
        return self.rescaled_iteration / self.iters_per_epoch if self.rescaled_iteration else 0.0

    @property
    def elapsed_time(self) -> float:
        """Training time in seconds, including the time before a resume."""
        return self._previous_seconds + (0.0 if self._clock_start is None else time.perf_counter() - self._clock_start)

    def start_clock(self) -> None:
        """Start measuring the training time."""
        self._clock_start = time.perf_counter()

    def stop_clock(self) -> None:
        """Stop measuring the training time."""
        self._previous_seconds, self._clock_start = self.elapsed_time, None

    def state_dict(self) -> ProgressState:
        """Return the state."""
        return {
            "iteration": self.iteration,
            "iters_per_epoch": self._iters_per_epoch,
            "elapsed_time": self.elapsed_time,
            "shift": self._shift,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: ProgressState) -> None:
        """Restore the state returned by :meth:`state_dict`.

        The saved epoch length applies until another one is set.

        Args:
            state: The state.
        """
        self.iteration, self._previous_seconds = state["iteration"], state["elapsed_time"]
        length, self._shift, self.skipped = state["iters_per_epoch"], state["shift"], state.get("skipped", 0)
        if self._is_length_set:
            self._shift = self._shift_for(self.iters_per_epoch, length)
        else:
            self._iters_per_epoch = length

    def align(self, position: int) -> None:
        """Set the position in the epoch. The number of completed epochs is rounded.

        Args:
            position: Number of completed iterations of the current epoch.
        """
        length, previous = self.iters_per_epoch, self.rescaled_iteration
        self._shift += round((previous - position) / length) * length + position - previous

    def end_epoch(self, iteration: int) -> None:
        """End the current epoch early.

        Args:
            iteration: Number of iterations at its end.
        """
        skipped = -(iteration + self._shift) % self.iters_per_epoch
        self._shift += skipped
        self.skipped += skipped

    def _shift_for(self, length: int, previous_length: int | None) -> int:
        if previous_length is None or previous_length == length:
            return self._shift
        if environment.rank() == 0:
            _logger.info(
                "An epoch has %d iterations and had %d at the snapshot. The number of completed epochs is kept.",
                *(length, previous_length),
            )
        self.skipped = 0
        return self.rescaled_iteration * length // previous_length - self.iteration
