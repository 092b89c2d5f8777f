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

    Attributes:
        reporter: The reporter. None after the block.
        observation: Dictionary that receives the values.
        owner: Object that opened the block.
        outer: Enclosing block.
        left: Reporter of the manager whose iteration this block was, after the block.
    """

    __slots__ = ("left", "observation", "outer", "owner", "reporter")

    def __init__(self, reporter: Collector, observation: Observation, owner: object, outer: Frame | None) -> None:
        self.reporter: Collector | None = reporter
        self.observation = observation
        self.owner: object = owner
        self.outer = outer
        self.left: weakref.ref[Collector] | None = None

    def close(self) -> None:
        # Tasks may keep the block for a long time, which must not keep the models alive.
        self.reporter = self.owner = None
        self.observation = {}


current: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("pte_tracking_reporter", default=None)


def enter_block(reporter: Collector, observation: Observation, owner: object) -> Frame:
    outer = current.get()
    while outer is not None and outer.reporter is None:
        outer = outer.outer
    frame = Frame(reporter, observation, owner, outer)
    current.set(frame)
    return frame


def leave_block(owner: object) -> None:
    """Leave the innermost block of an owner, and those within it, which were abandoned."""
    frame = top = current.get()
    while frame is not None and frame.owner is not owner:
        frame = frame.outer
    if frame is None:  # The block was entered in another context.
        return
    while top is not None and top is not frame.outer:
        outer = top.outer
        top.close()
        top = outer
    current.set(frame.outer)


class IterationReports:
    """Makes the reporter of a manager current in each iteration, and finds values that belong to no iteration.

    Values that other threads report in an iteration are kept apart until :meth:`collect`, because extensions iterate
    over the observation.

    Args:
        reporter: The reporter.
        is_running: Returns whether the training has started and not ended.
        warns: Whether to log a warning for values that are reported outside an iteration.

    Attributes:
        frame: Block of the current iteration; None between iterations.
    """

    def __init__(self, reporter: Collector, is_running: Callable[[], bool], warns: bool) -> None:
        self.frame: Frame | None = None
        self.is_running = is_running
        self._reporter = weakref.ref(reporter)
        self._from_threads: Observation = {}
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
        self.frame = enter_block(reporter, observation, self)
        self._has_started = True

    def collect(self) -> None:
        """Add the values that other threads have reported to the observation."""
        frame, values = self.frame, self._from_threads
        while values and frame is not None:
            key, value = values.popitem()
            frame.observation[key] = value

    def leave(self) -> None:
        """End the iteration."""
        frame, self.frame = self.frame, None
        leave_block(self)
        if frame is None:
            return
        frame.close()
        frame.left = self._reporter
        if current.get() is None:
            current.set(frame)  # Later reports in this context belong to this training.
        while self._from_threads:
            self._warnings.warn(self._from_threads.popitem()[0], _lost.TOO_LATE)

    def abandon(self) -> None:
        """Close the block of the iteration in a forked child, where nothing is recorded."""
        if self.frame is not None:
            self.frame.close()
            self.frame = None

    def add_from_thread(self, values: Mapping[str, Any], observer: object) -> None:
        """Add values that were reported outside the context of the iteration."""
        reporter = self._reporter()
        if self.frame is None:
            self.lose(values, observer)
        elif reporter is not None:
            reporter.add(values, observer, self._from_threads)

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
    reporter = frame.left() if frame is not None and frame.left is not None else None
    if reporter is not None and reporter.iterations is not None:
        return [reporter.iterations]
    trainings: list[IterationReports] = list(_lost.trainings)
    return [training for training in trainings if training.is_running()]
