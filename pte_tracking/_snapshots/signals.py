"""A signal that is noted, to be answered when the moment is right."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class SignalFlag:
    """Notes that a signal came, from :meth:`install` to :meth:`restore`.

    Args:
        number: The signal.

    Raises:
        ValueError: There is no such signal, or nobody can catch it.

    Attributes:
        is_received: Whether it came.
    """

    def __init__(self, number: int) -> None:
        try:
            self._signal = signal.Signals(number)
        except ValueError:
            raise ValueError(f"on_signal: expected a signal such as signal.SIGTERM, got {number!r}") from None
        if self._signal in (signal.SIGKILL, signal.SIGSTOP):
            raise ValueError(
                f"on_signal: {self._signal.name} cannot be caught; schedulers send SIGTERM or SIGUSR1 before"
            )
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self.is_received = False

    @property
    def exit_status(self) -> int:
        """What shells and schedulers call a process that a signal has ended."""
        return 128 + self._signal

    def install(self) -> None:
        """Note the signal from now on. Processes forked afterwards survive it, but for SIGTERM in torch's workers.

        Raises:
            RuntimeError: This is not the main thread.
        """
        try:
            self._set(self._signal, self._handle)
        except ValueError:
            raise RuntimeError(
                "on_signal: signals reach the main thread only; train there, or leave on_signal out"
            ) from None

    def restore(self) -> None:
        """Leave the signal to whoever had it before."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous_handlers = {}

    def _set(self, number: signal.Signals, handler: Any) -> None:
        self._previous_handlers[number] = signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.is_received:
            # Whole groups of processes are signalled, a loader's workers too. Torch would answer the death of a worker
            # with an exception in the midst of the iteration that is to be finished.
            self._set(signal.SIGCHLD, signal.SIG_DFL)
        self.is_received = True
