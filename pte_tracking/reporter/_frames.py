"""Blocks in which a reporter is current, and the iterations of a manager."""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pte_tracking.reporter import _lost
from pte_tracking.reporter._values import Observation


class Collector(Protocol):
    """Reporter, as blocks use it."""

    @property
    def iterations(self) -> IterationReports | None:
        """Reports of the iterations, if the reporter belongs to a manager."""

    def add(self, values: Mapping[str, Any], observer: object, observation: Observation) -> None:
        """Add values to a dictionary."""


class Frame:
    """Block in which a reporter is current.

    Args:
        reporter: The reporter; None for a block that is not open yet.
        observation: Dictionary that receives the values.
        owner: Object that identifies who opened the block.
        outer: Enclosing block.

    Attributes:
        reporter: The reporter. None after the block.
        observation: Dictionary that receives the values.
        owner: Object that identifies who opened the block.
        outer: Enclosing block.
        training: Reporter of the manager to whose iterations the block belongs; None for other blocks.
    """

    __slots__ = ("observation", "outer", "owner", "reporter", "training")

    def __init__(
        self, reporter: Collector | None, observation: Observation, owner: object, outer: Frame | None
    ) -> None:
        self.reporter = reporter
        self.observation = observation
        self.owner = owner
        self.outer = outer
        self.training: weakref.ref[Collector] | None = None

    def close(self) -> None:
        # Tasks may keep the block for a long time, which must not keep the models alive.
        self.reporter = None
        self.observation = {}


current: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("pte_tracking_reporter", default=None)


def enter_block(reporter: Collector, observation: Observation, owner: object) -> None:
    """Make a reporter current.

    Args:
        reporter: The reporter.
        observation: Dictionary that receives the values.
        owner: Object that identifies who opens the block.
    """
    last = current.get()
    outer = _find_open(last)
    if outer is None:  # The closed block of a training tells to which training later reports belong.
        outer = _find_training(last)
    current.set(Frame(reporter, observation, owner, outer))


def leave_block(owner: object) -> None:
    """Leave the innermost block of an owner, and those within it, which were abandoned."""
    frame = top = current.get()
    while frame is not None and frame.owner is not owner:
        frame = frame.outer
    if frame is None:  # The block was entered in another context.
        return
    while top is not None and top is not frame.outer:
        top.close()
        top = top.outer
    current.set(frame.outer)


def _find_open(frame: Frame | None) -> Frame | None:
    while frame is not None and frame.reporter is None:
        frame = frame.outer
    return frame


def _find_training(frame: Frame | None) -> Frame | None:
    while frame is not None and frame.training is None:
        frame = frame.outer
    return frame


class IterationReports:
    """Makes the reporter of a manager current in each iteration, and finds values that belong to no iteration.

    One block serves all iterations. Between them it is closed. Values that other threads report in an iteration are
    kept apart until :meth:`collect`, because extensions iterate over the observation.

    Args:
        reporter: The reporter.
        is_running: Returns whether the training has started and not ended.
        warns: Whether to log a warning for values that are reported outside an iteration.

    Attributes:
        frame: Block of the iterations.
        from_threads: Values that other threads have reported in the current iteration.
    """

    def __init__(self, reporter: Collector, is_running: Callable[[], bool], warns: bool) -> None:
        self._reporter = weakref.ref(reporter)
        self.frame = Frame(None, {}, self._reporter, None)
        self.frame.training = self._reporter
        self.is_running = is_running
        self.from_threads: Observation = {}
        self._warnings = _lost.LostValues(is_enabled=warns)
        self._has_started = False
        _lost.trainings.add(self)
        _lost.children.prepare()

    def enter(self, reporter: Collector, observation: Observation) -> None:
        """Begin an iteration.

        Args:
            reporter: The reporter.
            observation: Dictionary that receives the values.
        """
        frame, outer = self.frame, current.get()
        if outer is not frame:
            frame.outer = _find_open(outer)
            current.set(frame)
        frame.observation = observation
        frame.reporter = reporter
        self._has_started = True

    def collect(self) -> None:
        """Add the values that other threads have reported to the observation."""
        values = self.from_threads
        while values:
            key, value = values.popitem()
            self.frame.observation[key] = value

    def leave(self) -> None:
        """End the iteration."""
        frame = self.frame
        if current.get() is not frame:
            leave_block(frame.owner)
        frame.reporter = None
        frame.observation = {}
        if frame.outer is not None:
            current.set(frame.outer)
        while self.from_threads:
            self._warnings.warn(self.from_threads.popitem()[0], _lost.TOO_LATE)

    def abandon(self) -> None:
        """Close the block of the iteration in a forked child, where nothing is recorded."""
        self.frame.close()

    def add_from_thread(self, values: Mapping[str, Any], observer: object) -> None:
        """Add values that were reported outside the context of the iteration."""
        reporter = self._reporter()
        if self.frame.reporter is None:
            self.lose(values, observer)
        elif reporter is not None:
            reporter.add(values, observer, self.from_threads)

    def lose(self, values: Mapping[str, Any], observer: object) -> None:
        """Log a warning for values that were reported between iterations or after the training."""
        if self.is_running():
            self._warnings.warn_all(values, _lost.BETWEEN_ITERATIONS)
        elif self._has_started and observer is None:
            # A model that reports itself is often used after the training, and nobody misses its values then.
            self._warnings.warn_all(values, _lost.AFTER_TRAINING)


def find_trainings(frame: Frame | None) -> list[IterationReports]:
    """Return the trainings to which a report outside the iterations, or in another thread, may belong.

    Args:
        frame: Last block of this context.
    """
    reporter = frame.training() if frame is not None and frame.training is not None else None
    if reporter is not None and reporter.iterations is not None:
        return [reporter.iterations]
    trainings: list[IterationReports] = list(_lost.trainings)
    return [training for training in trainings if training.is_running()]
