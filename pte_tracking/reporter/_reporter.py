"""Reporters, and the functions that use the current reporter.

The current reporter is a context variable, so tasks of asyncio and threads do not affect each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, cast

from torch import Tensor

from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.printable import describe_value
from pte_tracking._store.values import check_key, check_new_key, checked_keys
from pte_tracking.reporter import _lost
from pte_tracking.reporter._frames import Frame, IterationReports, current, enter_block, find_trainings, leave_block
from pte_tracking.reporter._values import Observation, to_value


class Reporter:
    """Collector of reported values.

    A reporter is current within ``with reporter:``, ``with reporter.scope(observation):``, and, for the reporter of a
    manager, within ``with manager.run_iteration():``. The function :func:`report` reports to the current reporter.

    Attributes:
        observation: Dictionary that receives the values by key: ``int`` or ``float``, a tensor without dimensions on
            another device, or a deferred value. ``float(value)`` returns the number of each.

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
        self.iterations: IterationReports | None = None
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

    def _find_frame(self) -> Frame | None:
        """Return the innermost block of this reporter in this context, or else its current iteration."""
        frame = current.get()
        while frame is not None:
            if frame.reporter is self:
                return frame
            frame = frame.outer
        return self.iterations.frame if self.iterations and self.iterations.frame.reporter is self else None

    def __enter__(self) -> Reporter:
        enter_block(self, self._observation, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leave_block(self)

    def iteration_reports(self, is_running: Callable[[], bool], *, warns: bool) -> IterationReports:
        """Return the object that makes this reporter current in each iteration of a manager.

        Args:
            is_running: Returns whether the training has started and not ended.
            warns: Whether to log a warning for values that are reported outside an iteration.
        """
        self.iterations = IterationReports(self, is_running, warns)
        return self.iterations

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
            values: Numbers by key: Python or NumPy numbers, or arrays or tensors of one element, on any device.
                Booleans become 0 or 1. Values are copied and detached, so later changes in place have no effect.
                A pair ``(value, weight)`` sets the weight of the value in means. A function without arguments is called
                once, when its number is needed.
            observer: Registered object that reports the values. Its name becomes the prefix of the keys. Defaults to no
                prefix.

        Raises:
            TypeError: If ``values`` is not a mapping, a key is not a string, or a value is not a real number.
            ValueError: If a key is empty or not valid Unicode, or a value has several elements.
            KeyError: If the observer is not registered.
        """
        frame = self._find_frame()
        if frame is None and self.iterations is not None:
            self.iterations.lose(values, observer)
        self.add(values, observer, self._observation if frame is None else frame.observation)

    def add(self, values: Mapping[str, Any], observer: object, observation: Observation) -> None:
        """Add values to a dictionary.

        Args:
            values: Numbers by key; see :meth:`report`.
            observer: Registered object that reports the values, or None.
            observation: Dictionary that receives the values.
        """
        try:
            items = values.items()
        except AttributeError:
            raise TypeError(
                f"values: expected a mapping of keys to numbers, such as {{'loss': loss}}, got {describe_value(values)}"
            ) from None
        prefix = "" if observer is None else self._prefix(observer)
        # This loop runs in each iteration: checked keys, floats and tensors are handled without a call of a function.
        for key, value in items:
            plain = checked_keys.get(key) or check_new_key(key)
            if type(value) is not float:
                try:
                    # Reading a tensor on another device would make the host wait for it.
                    is_float = type(value) is Tensor and value.is_cpu and type(number := value.item()) is float
                except RuntimeError:
                    is_float = False
                value = number if is_float else to_value(plain, value)
            observation[prefix + plain if prefix else plain] = value

    def _prefix(self, observer: object) -> str:
        try:
            return self._observers[id(observer)][0] + "/"
        except KeyError:
            raise KeyError(
                f"observer: {type(observer).__name__} is not registered with this reporter. Call add_observer() first."
            ) from None


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
        enter_block(self._reporter, self._observation, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leave_block(self)


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
    frame = current.get()
    if frame is not None and frame.reporter is not None:
        return cast(Reporter, frame.reporter)
    trainings = find_trainings(frame)
    frame = trainings[0].frame if len(trainings) == 1 else None
    if frame is None or frame.reporter is None:
        raise RuntimeError(
            "No reporter is current in this thread. Run this code within 'with reporter:', "
            "'with reporter.scope({}):', or 'with manager.run_iteration():'."
        )
    return cast(Reporter, frame.reporter)


@refuse_unknown("Pass the values as a dictionary, such as report({'loss': loss}).")
def report(values: Mapping[str, Any], observer: object = None) -> None:
    """Report values to the current reporter. A value replaces an earlier one of the same key in the iteration.

    In a thread without a current reporter, the values belong to the iteration of the only training in the process.
    Before a training, the call has no effect, so that a model that reports can also be used without one. Between
    iterations, in a child process, or while several managers are training, a warning names each key once.

    Args:
        values: Numbers by key: Python or NumPy numbers, or arrays or tensors of one element, on any device. Booleans
            become 0 or 1. Log strings with :meth:`Run.log_text`. A pair ``(value, weight)`` sets the weight of the
            value in means, such as the number of examples in the batch. A function without arguments is called once,
            when its number is needed.
        observer: Registered object that reports the values. Its name becomes the prefix of the keys. Defaults to no
            prefix.

    Raises:
        TypeError: If ``values`` is not a mapping, a key is not a string, or a value is not a real number.
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
    frame = current.get()
    if frame is not None and frame.reporter is not None:
        frame.reporter.add(values, observer, frame.observation)
    elif _lost.is_in_child_process():
        _lost.children.warn(values)
    elif len(trainings := find_trainings(frame)) == 1:
        trainings[0].add_from_thread(values, observer)
    elif trainings:
        _lost.warn_ambiguous(values)


def report_result(values: Mapping[str, Any]) -> None:
    """Report values that the caller also returns, so no warning is needed if no training runs.

    Args:
        values: Numbers by key; see :func:`report`.

    Example:
        >>> from pte_tracking.reporter import report_result
        >>> def evaluate():
        ...     result = {"val/loss": 0.25}
        ...     report_result(result)
        ...     return result
        >>> evaluate()
        {'val/loss': 0.25}
    """
    frame = current.get()
    is_current = frame is not None and frame.reporter is not None
    if is_current or any(training.is_running() for training in find_trainings(frame)):
        report(values)


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
