"""How far a training is: iterations, epochs, time."""

from __future__ import annotations

import time
from typing import TypedDict


class ProgressState(TypedDict):
    """What of it survives a resume."""

    iteration: int
    iters_per_epoch: int | None
    elapsed_time: float


class Progress:
    """Counts iterations and the seconds that they took.

    Attributes:
        iteration: Iterations done.
    """

    def __init__(self, iters_per_epoch: int | None) -> None:
        self.iteration = 0
        self._iters_per_epoch: int | None = None
        if iters_per_epoch is not None:
            self.set_iters_per_epoch("iters_per_epoch", iters_per_epoch)
        self._earlier_seconds = 0.0
        self._since: float | None = None

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
        if self._iters_per_epoch not in (None, length):
            raise ValueError(
                f"{argument}: an epoch has {self._iters_per_epoch} iterations, as said before; got {length}"
            )
        self._iters_per_epoch = length

    @property
    def knows_epochs(self) -> bool:
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
    def known_epoch(self) -> int | None:
        """Whole epochs done; None in a loop that counts iterations only."""
        length = self._iters_per_epoch
        return None if length is None else self.iteration // length

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.iteration // self.iters_per_epoch

    @property
    def is_new_epoch(self) -> bool:
        """Whether the last iteration done was the last of its epoch."""
        return self.iteration > 0 and self.iteration % self.iters_per_epoch == 0

    @property
    def epoch_detail(self) -> float:
        """Epochs done, with the fraction of the one under way."""
        return self.iteration / self.iters_per_epoch

    @property
    def elapsed_time(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._earlier_seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def start_clock(self) -> None:
        """The training begins."""
        self._since = time.perf_counter()

    def stop_clock(self) -> None:
        """The training is over."""
        self._earlier_seconds, self._since = self.elapsed_time, None

    def state_dict(self) -> ProgressState:
        return {
            "iteration": self.iteration,
            "iters_per_epoch": self._iters_per_epoch,
            "elapsed_time": self.elapsed_time,
        }

    def load_state_dict(self, state: ProgressState) -> None:
        self.iteration, self._earlier_seconds = state["iteration"], state["elapsed_time"]
        if self._iters_per_epoch is None:
            self._iters_per_epoch = state["iters_per_epoch"]
