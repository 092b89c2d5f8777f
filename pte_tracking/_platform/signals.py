"""Signals. Windows has SIGINT, SIGTERM, SIGABRT, and SIGBREAK only."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable


def _existing(names: Iterable[str]) -> tuple[signal.Signals, ...]:
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


#: Signals that end a process. Exceptions in handlers of other signals, such as of a timer, are errors.
ENDING_SIGNALS = _existing(
    ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGABRT", "SIGBREAK")
)
UNCATCHABLE_SIGNALS = _existing(("SIGKILL", "SIGSTOP"))
#: Signals that a parent process receives when a child ends.
CHILD_SIGNALS = _existing(("SIGCHLD",))
#: Signal with which :func:`kill` ends a process. On Windows, SIGTERM ends a process without a handler, too.
_KILL_SIGNAL = (*_existing(("SIGKILL",)), signal.SIGTERM)[0]
#: Exit status that :mod:`subprocess` and :mod:`multiprocessing` report of a process that :func:`kill` ended.
KILLED_STATUS = int(_KILL_SIGNAL) if os.name == "nt" else -_KILL_SIGNAL


def kill(pid: int) -> None:
    """End a process at once."""
    os.kill(pid, _KILL_SIGNAL)


def terminate(pid: int) -> None:
    """Request a process to end. On Windows, it ends at once. Nothing happens if it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
