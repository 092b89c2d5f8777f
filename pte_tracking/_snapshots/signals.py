"""Signal handler that sets a flag."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from pte_tracking._platform.signals import CHILD_SIGNALS, UNCATCHABLE_SIGNALS


class SignalFlag:
    """Flag that a signal sets between :meth:`install` and :meth:`restore`.

    Args:
        number: Number of the signal.

    Raises:
        ValueError: If the signal does not exist or cannot be caught.

    Attributes:
        is_received: Whether the signal was received.
    """

    def __init__(self, number: int) -> None:
        try:
            self._signal = signal.Signals(number)
        except ValueError:
            raise ValueError(f"on_signal: expected a signal such as signal.SIGTERM, got {number!r}") from None
        if self._signal in UNCATCHABLE_SIGNALS:
            raise ValueError(
                f"on_signal: {self._signal.name} cannot be caught. Pass the signal that the scheduler sends before it, "
                "such as signal.SIGTERM or signal.SIGUSR1."
            )
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self.is_received = False

    @property
    def exit_status(self) -> int:
        """Exit status that shells and schedulers expect of a process killed by the signal."""
        return 128 + self._signal

    def install(self) -> None:
        """Install the handler. Processes forked later inherit it, except for SIGTERM in workers of torch.

        Raises:
            RuntimeError: If this is not the main thread.
        """
        try:
            self._set(self._signal, self._handle)
        except ValueError:
            raise RuntimeError(
                "on_signal: only the main thread can handle signals. Train in the main thread, or omit on_signal."
            ) from None

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous_handlers = {}

    def _set(self, number: signal.Signals, handler: Any) -> None:
        self._previous_handlers[number] = signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.is_received:
            # Schedulers signal the whole process group, including the workers of a loader. When a worker ends, the
            # handler of torch would raise an exception in the iteration that has to finish first.
            for number_of_child in CHILD_SIGNALS:
                self._set(number_of_child, signal.SIG_DFL)
        self.is_received = True
