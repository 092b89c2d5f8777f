"""Exceptions of signal handlers."""

import functools
import signal

import pytest

from pte_tracking._store.signal_errors import is_from_signal_handler


class OverdueError(Exception):
    pass


def raise_overdue(number, frame):
    raise OverdueError


def raise_with_any_arguments(*_):
    raise OverdueError


def raise_after_uninstalling(number, frame):
    signal.signal(number, signal.SIG_DFL)
    raise OverdueError


def raise_with_prefix(prefix, number, frame):
    raise OverdueError(prefix)


def raise_indirectly(number, frame):
    raise_overdue(0, None)


def raise_without_frame(number, frame):
    del frame
    raise OverdueError


class Alarm:
    def __call__(self, number, frame):
        raise OverdueError

    def ring(self, number, frame):
        raise OverdueError


HANDLERS = {
    "function": raise_overdue,
    "any arguments": raise_with_any_arguments,
    "uninstalled": raise_after_uninstalling,
    "partial": functools.partial(raise_with_prefix, "late"),
    "indirect": raise_indirectly,
    "without frame": raise_without_frame,
    "object": Alarm(),
    "method": Alarm().ring,
}


@pytest.fixture
def alarm():
    previous = signal.getsignal(signal.SIGALRM)
    yield functools.partial(signal.signal, signal.SIGALRM)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_exception_of_signal_handler_is_recognized(alarm, handler):
    alarm(handler)
    with pytest.raises(OverdueError) as info:
        signal.raise_signal(signal.SIGALRM)
    assert is_from_signal_handler(info.value)


def test_exception_of_called_function_is_not_that_of_a_handler(alarm):
    alarm(raise_overdue)
    with pytest.raises(ZeroDivisionError) as info:
        sum(1 // value for value in (0,))
    assert not is_from_signal_handler(info.value)
