"""Reporters, and the functions that use the current reporter."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from pte_tracking._store.values import check_key
from pte_tracking.reporter._values import Observation, to_value


class Reporter:
    """Collects reported values in :attr:`observation`.

    Attributes:
        observation: The dictionary that gets the values.
    """

    def __init__(self) -> None:
        self.observation: Observation = {}
        # By identity, as in Chainer; the observer is kept, so that its id is not given to another object.
        self._observers: dict[int, tuple[str, object]] = {}

    def __enter__(self) -> Reporter:
        _current.stack.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.stack.pop()

    def scope(self, observation: Observation) -> ReportScope:
        """A ``with`` block in which this reporter is the current one and writes to ``observation``."""
        return ReportScope(self, observation)

    def add_observer(self, name: str, observer: object) -> None:
        """Names an observer: values that it reports are called ``name/key``."""
        self._observers[id(observer)] = (check_key(name, "name"), observer)

    def add_observers(self, prefix: str, observers: Iterable[tuple[str, object]]) -> None:
        """Names several observers: each is called ``prefix`` followed by its own name."""
        for name, observer in observers:
            self.add_observer(prefix + name, observer)

    def report(self, values: Mapping[str, Any], observer: object = None) -> None:
        """Adds values to the observation; a later value of the same key replaces an earlier one.

        Args:
            values: Numbers by key: Python's or NumPy's, or tensors of one element on any device. What is changed in
                place afterwards is not seen, and no graph is kept.
            observer: Who reports them; its name goes before the keys.

        Raises:
            TypeError: A key is no string, or a value no real number.
            ValueError: A key is empty or no valid Unicode, or a value has several elements.
            KeyError: The observer was not added.
        """
        observation = self.observation
        prefix = "" if observer is None else self._prefix(observer)
        # Paid for in every iteration: the commonest keys and values are told by one look each.
        for key, value in values.items():
            if not (type(key) is str and key and key.isascii()):
                check_key(key, "values")
            observation[prefix + key] = value if type(value) is float else to_value(key, value)

    def _prefix(self, observer: object) -> str:
        try:
            return self._observers[id(observer)][0] + "/"
        except KeyError:
            raise KeyError(
                f"observer: {type(observer).__name__} is not known to this reporter; name it first with add_observer()"
            ) from None


class ReportScope:
    """Makes a reporter current and its observation another one, for the length of a ``with`` block."""

    def __init__(self, reporter: Reporter, observation: Observation) -> None:
        self._reporter = reporter
        self._observation = observation

    def __enter__(self) -> None:
        self.enter(self._observation)

    def enter(self, observation: Observation) -> None:
        """Enters the block with another observation: one scope serves all iterations."""
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
    """The reporter of the innermost ``with`` block of this thread.

    Raises:
        RuntimeError: There is none.
    """
    stack = _current.stack
    if not stack:
        raise RuntimeError(
            "no reporter is current in this thread: use 'with reporter:', 'with reporter.scope({}):' "
            "or 'with manager.run_iteration():' around this"
        )
    return stack[-1]


def report(values: Mapping[str, Any], observer: object = None) -> None:
    """Reports values to the current reporter; without one, as when a model is used outside training, does nothing.

    See :meth:`Reporter.report`.
    """
    stack = _current.stack
    if stack:
        stack[-1].report(values, observer)


def report_scope(observation: Observation) -> ReportScope:
    """A ``with`` block in which the current reporter writes to ``observation``.

    Raises:
        RuntimeError: No reporter is current.
    """
    return get_current_reporter().scope(observation)
