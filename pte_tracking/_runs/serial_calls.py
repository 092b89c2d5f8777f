"""Calls that are made one after the other, also by signal handlers."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Iterator
from threading import RLock

_MAX_WAIT_SECONDS = 0.1  # for a call of another thread, which may itself wait for a lock of this one
_POLL_SECONDS = 0.0002


class SerialCalls:
    """Base class of an object whose calls change it one after the other.

    A signal handler or a logging handler may make a call within another one of the same thread, which cannot wait. A
    logging handler of another thread may hold a lock for which the call in progress waits. Such calls are deferred.

    Args:
        lock: Lock that is held during a call.
    """

    def __init__(self, lock: RLock) -> None:
        self._append_lock = lock
        #: Whether a call is in progress, in the thread that holds the lock.
        self._is_busy = False
        self._deferred: collections.deque[Callable[[], object]] = collections.deque()
        self._is_running_deferred = False

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Defer the events that signal handlers, logging handlers and other threads add."""
        with self._append_lock:
            self._is_busy = True
            try:
                yield
            finally:
                self._is_busy = False
                self._run_deferred()

    def _defer(self, call: Callable[[], object]) -> None:
        """Make a call when the one in progress ends. Wait for it if another thread is making it."""
        self._deferred.append(call)
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        while self._is_busy and not self._is_nested() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not self._is_busy:
            self._run_deferred()

    def _is_nested(self) -> bool:
        """Whether a call of this thread is in progress."""
        if not self._append_lock.acquire(blocking=False):
            return False
        try:
            return self._is_busy
        finally:
            self._append_lock.release()

    def _run_deferred(self) -> None:
        with self._append_lock:
            if self._is_running_deferred:  # a deferred call ends, and the loop continues
                return
            self._is_running_deferred = True
            try:
                while self._deferred:
                    self._deferred.popleft()()
            finally:
                self._is_running_deferred = False
