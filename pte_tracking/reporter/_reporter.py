"""Reporters, and the functions that use the current reporter.

The current reporter is a context variable, so that tasks of asyncio and threads do not affect each other.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from pte_tracking._store.values import check_key
from pte_tracking.reporter import _lost
from pte_tracking.reporter._values import Observation, to_value


class Reporter:
    """Collector of reported values.

    A reporter is current within ``with reporter:``, ``with reporter.scope(observation):``, and, for the reporter of a
    manager, within ``with manager.run_iteration():``. The function :func:`report` reports to the current reporter.

    Attributes:
        observation: Dictionary that receives the values by key.

    Example:
        >>> from torch import nn
        >>> import pte_tracking as pte
        >>> model = nn.Linear(2, 1)
        >>> reporter = pte.Reporter()
        >>> reporter.add_observer("main", model)
        >>> with reporter:
        ...     pte.report({"loss": 0.5}, model)
        >>> reporter.observation
        {'main/loss': 0.5}
    """

    def __init__(self) -> None:
        self._observation: Observation = {}
        #: Reports of the iterations, if the reporter belongs to a manager.
        self._iterations: IterationReports | None = None
        # By identity, as in Chainer. The reference keeps the observer alive, so its id is not reused.
        self._observers: dict[int, tuple[str, object]] = {}

    @property
    def observation(self) -> Observation:
        frame = self._find_frame()
        return self._observation if frame is None else frame.observation

    @observation.setter
    def observation(self, observation: Observation) -> None:
        frame = self._find_frame()
        if frame is None or frame.observation is self._observation:
            self._observation = observation
        if frame is not None:
            frame.observation = observation

    def _find_frame(self) -> _Frame | None:
        """Return the innermost block of this reporter in this context, or else its current iteration."""
        frame = _current.get()
        while frame is not None:
            if frame.reporter is self:
                return frame
            frame = frame.outer
        return self._iterations.frame if self._iterations else None

    def __enter__(self) -> Reporter:
        _enter(self, self._observation, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _leave(self)

    def iteration_reports(self, is_running: Callable[[], bool], *, warns: bool) -> IterationReports:
        """Return the object that makes this reporter current in each iteration of a manager.

        Args:
            is_running: Returns whether the training has started and not ended.
            warns: Whether to log a warning for values that are reported outside an iteration.
        """
        self._iterations = IterationReports(self, is_running, warns)
        return self._iterations

    def scope(self, observation: Observation) -> ReportScope:
        """Return a context manager in which this reporter is current and collects into another dictionary.

        Args:
            observation: Dictionary that receives the values.
        """
        return ReportScope(self, observation)

    def add_observer(self, name: str, observer: object) -> None:
        """Register an observer. The keys of the values that it reports are prefixed with ``name/``.

        Args:
            name: Name of the observer, a non-empty string.
            observer: Any object, such as a model.
        """
        self._observers[id(observer)] = (check_key(name, "name"), observer)

    def add_observers(self, prefix: str, observers: Iterable[tuple[str, object]]) -> None:
        """Register several observers.

        Args:
            prefix: Prefix of each name. Nothing is inserted between the prefix and the name.
            observers: Pairs of name and observer, as from ``model.named_modules()``.
        """
        for name, observer in observers:
            self.add_observer(prefix + name, observer)

    def report(self, values: Mapping[str, Any], observer: object = None) -> None:
        """Add values to the observation. A later value replaces an earlier value of the same key.

        Args:
            values: Numbers by key: Python or NumPy numbers, or tensors of one element on any device. Values are copied
                and detached, so later changes in place have no effect. A pair ``(value, weight)`` sets the weight of
                the value in means. A function without arguments is called once, when its number is needed.
            observer: Registered object that reports the values. Its name becomes the prefix of the keys. Defaults to no
                prefix.

        Raises:
            TypeError: If a key is not a string, or a value is not a real number.
            ValueError: If a key is empty or not valid Unicode, or a value has several elements.
            KeyError: If the observer is not registered.
        """
        frame = self._find_frame()
        if frame is None and self._iterations is not None:
            self._iterations.lose(values, observer)
        self.add(values, observer, self._observation if frame is None else frame.observation)

    def add(self, values: Mapping[str, Any], observer: object, observation: Observation) -> None:
        """Add values to a dictionary.

        Args:
            values: Numbers by key; see :meth:`report`.
            observer: Registered object that reports the values, or None.
            observation: Dictionary that receives the values.
        """
        prefix = "" if observer is None else self._prefix(observer)
        # This loop runs in each iteration: a single check recognizes the most common kinds of keys and values.
        for key, value in values.items():
            if not (type(key) is str and key and key.isascii()):
                check_key(key, "values")
            observation[prefix + key] = value if type(value) is float else to_value(key, value)

    def _prefix(self, observer: object) -> str:
        try:
            return self._observers[id(observer)][0] + "/"
        except KeyError:
            raise KeyError(
                f"observer: {type(observer).__name__} is not registered with this reporter. Call add_observer() first."
            ) from None


class _Frame:
    """Block in which a reporter is current.

    Attributes:
        reporter: The reporter. None after the block.
        observation: Dictionary that receives the values.
        owner: Object that opened the block.
        outer: Enclosing block.
        left: Reporter of the manager whose iteration this block was, after the block.
    """

    __slots__ = ("left", "observation", "outer", "owner", "reporter")

    def __init__(self, reporter: Reporter, observation: Observation, owner: object, outer: _Frame | None) -> None:
        self.reporter: Reporter | None = reporter
        self.observation = observation
        self.owner: object = owner
        self.outer = outer
        self.left: weakref.ref[Reporter] | None = None

    def close(self) -> None:
        # Tasks may keep the block for a long time, which must not keep the models alive.
        self.reporter = self.owner = None
        self.observation = {}


_current: contextvars.ContextVar[_Frame | None] = contextvars.ContextVar("pte_tracking_reporter", default=None)


def _enter(reporter: Reporter, observation: Observation, owner: object) -> _Frame:
    outer = _current.get()
    while outer is not None and outer.reporter is None:
        outer = outer.outer
    frame = _Frame(reporter, observation, owner, outer)
    _current.set(frame)
    return frame


def _leave(owner: object) -> None:
    """Leave the innermost block of an owner, and those within it, which were abandoned."""
    frame = top = _current.get()
    while frame is not None and frame.owner is not owner:
        frame = frame.outer
    if frame is None:  # The block was entered in another context.
        return
    while top is not None and top is not frame.outer:
        outer = top.outer
        top.close()
        top = outer
    _current.set(frame.outer)


class ReportScope:
    """Context manager in which a reporter is current and collects into another dictionary.

    Args:
        reporter: The reporter.
        observation: Dictionary that receives the values within ``with scope:``.
    """

    def __init__(self, reporter: Reporter, observation: Observation) -> None:
        self._reporter = reporter
        self._observation = observation

    def __enter__(self) -> None:
        _enter(self._reporter, self._observation, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _leave(self)


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

    def __init__(self, reporter: Reporter, is_running: Callable[[], bool], warns: bool) -> None:
        self.frame: _Frame | None = None
        self.is_running = is_running
        self._reporter = weakref.ref(reporter)
        self._from_threads: Observation = {}
        self._warnings = _lost.LostValues(is_enabled=warns)
        self._has_started = False
        _lost.trainings.add(self)
        _lost.children.prepare()

    def enter(self, reporter: Reporter, observation: Observation) -> None:
        """Begin an iteration.

        Args:
            reporter: The reporter.
            observation: Dictionary that receives the values.
        """
        self.frame = _enter(reporter, observation, self)
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
        _leave(self)
        if frame is None:
            return
        frame.close()
        frame.left = self._reporter
        if _current.get() is None:
            _current.set(frame)  # Later reports in this context belong to this training.
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


def get_current_reporter() -> Reporter:
    """Return the reporter of the innermost ``with`` block of this thread or task.

    In a thread without such a block, it is the reporter of the iteration of the only training in the process.

    Raises:
        RuntimeError: If no reporter is current.

    Example:
        >>> import pte_tracking as pte
        >>> reporter = pte.Reporter()
        >>> with reporter:
        ...     pte.get_current_reporter() is reporter
        True
    """
    frame = _current.get()
    if frame is not None and frame.reporter is not None:
        return frame.reporter
    trainings = _find_trainings(frame)
    frame = trainings[0].frame if len(trainings) == 1 else None
    if frame is None or frame.reporter is None:
        raise RuntimeError(
            "No reporter is current in this thread. Run this code within 'with reporter:', "
            "'with reporter.scope({}):', or 'with manager.run_iteration():'."
        )
    return frame.reporter


def report(values: Mapping[str, Any], observer: object = None) -> None:
    """Report values to the current reporter.

    In a thread without a current reporter, the values belong to the iteration of the only training in the process.
    Before a training, the call has no effect, so that a model that reports can also be used without one. Between
    iterations, in a child process, or if several trainings can be meant, a warning names each key once.

    Args:
        values: Numbers by key: Python or NumPy numbers, or tensors of one element on any device. A pair ``(value,
            weight)`` sets the weight of the value in means, such as the number of examples in the batch. A function
            without arguments is called once, when its number is needed.
        observer: Registered object that reports the values. Its name becomes the prefix of the keys. Defaults to no
            prefix.

    Raises:
        TypeError: If a key is not a string, or a value is not a real number.
        ValueError: If a key is empty or not valid Unicode, or a value has several elements.
        KeyError: If the observer is not registered with the current reporter.

    Example:
        >>> import pte_tracking as pte
        >>> reporter = pte.Reporter()
        >>> with reporter:
        ...     pte.report({"train/loss": 0.5})
        >>> reporter.observation
        {'train/loss': 0.5}
    """
    frame = _current.get()
    if frame is not None and frame.reporter is not None:
        frame.reporter.add(values, observer, frame.observation)
    elif _lost.is_in_child_process():
        _lost.children.warn(values)
    elif len(trainings := _find_trainings(frame)) == 1:
        trainings[0].add_from_thread(values, observer)
    elif trainings:
        _lost.warn_ambiguous(values)


def _find_trainings(frame: _Frame | None) -> list[IterationReports]:
    """Return the trainings to which a report outside the iterations, or in another thread, may belong.

    Args:
        frame: Last block of this context.
    """
    reporter = frame.left() if frame is not None and frame.left is not None else None
    if reporter is not None and reporter._iterations is not None:
        return [reporter._iterations]
    trainings: list[IterationReports] = list(_lost.trainings)
    return [training for training in trainings if training.is_running()]


def report_scope(observation: Observation) -> ReportScope:
    """Return a context manager in which the current reporter collects into another dictionary.

    Args:
        observation: Dictionary that receives the values.

    Raises:
        RuntimeError: If no reporter is current.

    Example:
        >>> import pte_tracking as pte
        >>> reporter, observation = pte.Reporter(), {}
        >>> with reporter:
        ...     with pte.report_scope(observation):
        ...         pte.report({"val/loss": 0.25})
        >>> observation, reporter.observation
        ({'val/loss': 0.25}, {})
    """
    return get_current_reporter().scope(observation)
