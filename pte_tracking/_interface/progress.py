"""How far a training is: iterations, epochs, time."""

from __future__ import annotations

import time
from typing import TypedDict


class ProgressState(TypedDict):
    """What of it survives a resume."""

    iteration: int
    iters_per_epoch: int | None
    elapsed_time: float
    shift: int


class Progress:
    """Counts iterations and the seconds that they took.

    Attributes:
        iteration: Iterations done.
    """

    def __init__(self, iters_per_epoch: int | None) -> None:
        self.iteration = 0
        self._iters_per_epoch: int | None = None
        self._is_length_set = False
        #: How many iterations more would have been done by now, had epochs always been as long as they are.
        self._shift = 0
        if iters_per_epoch is not None:
            self.set_iters_per_epoch("iters_per_epoch", iters_per_epoch)
        self._previous_seconds = 0.0
        self._clock_start: float | None = None

    def set_iters_per_epoch(self, argument: str, length: int) -> None:
        """Say how long an epoch is, once and for all.

        Raises:
            TypeError: It is no whole number.
            ValueError: It is not positive, or another one was given before.
        """
        if isinstance(length, bool) or not isinstance(length, int):
            raise TypeError(f"{argument}: expected a whole number, got {length!r} of type {type(length).__name__}")
        if length <= 0:
            raise ValueError(f"{argument}: expected at least one iteration per epoch, got {length}; is the data empty?")
        if self._is_length_set and self._iters_per_epoch != length:
            raise ValueError(
                f"{argument}: an epoch has {self._iters_per_epoch} iterations, as said before; got {length}"
            )
        self._shift = self._shift_for(length, self._iters_per_epoch)
        self._iters_per_epoch, self._is_length_set = length, True

    @property
    def is_epoch_length_set(self) -> bool:
        """Whether :attr:`iters_per_epoch` was said, here or, with as many ranks, in what this goes on from."""
        return self._is_length_set

    def epoch_at(self, iteration: int) -> int:
        """The epoch that an iteration, counted from 0, belongs to, as long as epochs are now."""
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
                f"iteration: {iteration} lies behind, {self.iteration} are done; "
                "after a resume begin your loop at manager.iteration"
            )
        if epoch is not None and self.has_epoch_length and epoch != self.epoch_at(iteration):
            raise ValueError(
                f"iteration: {iteration} is in epoch {self.epoch_at(iteration)}, not {epoch}, for an epoch "
                f"has {self.iters_per_epoch}; iterations are counted over all epochs: epoch * epoch_size + i"
            )
        self.iteration = iteration

    @property
    def has_epoch_length(self) -> bool:
        """Whether :attr:`iters_per_epoch` is known."""
        return self._iters_per_epoch is not None

    @property
    def iters_per_epoch(self) -> int:
        """Iterations in one epoch.

        Raises:
            RuntimeError: Nobody has told yet.
        """
        if self._iters_per_epoch is None:
            raise RuntimeError(
                "how many iterations an epoch has is not known: give iters_per_epoch=len(loader) to the manager, "
                "or epoch_size= to run_iteration(), or loop over manager.batches(loader)"
            )
        return self._iters_per_epoch

    @property
    def epoch_or_none(self) -> int | None:
        """Whole epochs done; None in a loop that counts iterations only."""
        length = self._iters_per_epoch
        return None if length is None else (self.iteration + self._shift) // length

    @property
    def rescaled_iteration(self) -> int:
        """The iterations done, had epochs always been as long as they are now.

        They get longer or shorter where a training goes on with another batch size, or on another number of ranks: the
        epochs done by then stay done, and steps go on.
        """
        return self.iteration + self._shift

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.rescaled_iteration // self.iters_per_epoch

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last iteration done was the last of its epoch."""
        return self.rescaled_iteration > 0 and self.rescaled_iteration % self.iters_per_epoch == 0

    @property
    def epoch_detail(self) -> float:
        """Epochs done, with the fraction of the one under way."""
        return self.rescaled_iteration / self.iters_per_epoch

    @property
    def elapsed_time(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._previous_seconds + (0.0 if self._clock_start is None else time.perf_counter() - self._clock_start)

    def start_clock(self) -> None:
        """The training begins."""
        self._clock_start = time.perf_counter()

    def stop_clock(self) -> None:
        """The training is over."""
        self._previous_seconds, self._clock_start = self.elapsed_time, None

    def state_dict(self) -> ProgressState:
        return {
            "iteration": self.iteration,
            "iters_per_epoch": self._iters_per_epoch,
            "elapsed_time": self.elapsed_time,
            "shift": self._shift,
        }

    def load_state_dict(self, state: ProgressState, is_resized: bool = False) -> None:
        """Takes back what :meth:`state_dict` returned.

        Args:
            state: It.
            is_resized: Other ranks share the data now, so that epochs may be longer or shorter than they were.
        """
        self.iteration, self._previous_seconds = state["iteration"], state["elapsed_time"]
        length, self._shift = state["iters_per_epoch"], state["shift"]
        if self._is_length_set:
            self._shift = self._shift_for(self.iters_per_epoch, length)
        else:
            # After a change, until somebody says how long they are now.
            self._iters_per_epoch, self._is_length_set = length, length is not None and not is_resized

    def _shift_for(self, length: int, previous_length: int | None) -> int:
        if previous_length is None:
            return self._shift
        return self.rescaled_iteration * length // previous_length - self.iteration
