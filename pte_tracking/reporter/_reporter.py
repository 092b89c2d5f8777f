"""Reporters, and the functions that use the current reporter."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from pte_tracking._store.values import check_key
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
        self.observation: Observation = {}
        # By identity, as in Chainer. The reference keeps the observer alive, so its id is not reused.
        self._observers: dict[int, tuple[str, object]] = {}

    def __enter__(self) -> Reporter:
        _current.stack.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.stack.pop()

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
        observation = self.observation
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
        self.enter(self._observation)

    def enter(self, observation: Observation) -> None:
        """Enter the scope with another dictionary. One scope object can serve all iterations.

        Args:
            observation: Dictionary that receives the values.
        """
        reporter = self._reporter
        self._outer, reporter.observation = reporter.observation, observation
        _current.stack.append(reporter)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.stack.pop()
        self._reporter.observation = self._outer


class _Current(threading.local):
    def __init__(self) -> None:
        self.stack: list[Reporter] = []


_current = _Current()


def get_current_reporter() -> Reporter:
    """Return the reporter of the innermost ``with`` block of this thread.

    Raises:
        RuntimeError: If no reporter is current.

    Example:
        >>> import pte_tracking as pte
        >>> reporter = pte.Reporter()
        >>> with reporter:
        ...     pte.get_current_reporter() is reporter
        True
    """
    stack = _current.stack
    if not stack:
        raise RuntimeError(
            "No reporter is current in this thread. Run this code within 'with reporter:', "
            "'with reporter.scope({}):', or 'with manager.run_iteration():'."
        )
    return stack[-1]


def report(values: Mapping[str, Any], observer: object = None) -> None:
    """Report values to the current reporter.

    Without a current reporter the call has no effect, so that a model that reports can also be used outside training.

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
    stack = _current.stack
    if stack:
        stack[-1].report(values, observer)


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
