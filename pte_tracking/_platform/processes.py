"""Processes: identity, start, priority, pipes, and fork."""

from __future__ import annotations

import contextlib
import os
import platform
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import _winapi
    import msvcrt

    #: Options of :class:`subprocess.Popen` for a background process that Ctrl-C in the terminal does not reach.
    BACKGROUND_OPTIONS: dict[str, Any] = {
        "creationflags": subprocess.CREATE_NEW_PROCESS_GROUP
        | subprocess.CREATE_NO_WINDOW
        | subprocess.BELOW_NORMAL_PRIORITY_CLASS
    }
else:
    import resource

    BACKGROUND_OPTIONS: dict[str, Any] = {"start_new_session": True}

_PROC = Path("/proc")
_PIPE_POLL_SECONDS = 0.02


def boot_id() -> str | None:
    """Return an ID of the machine since its last start. None if the system has no boot ID."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def pid_namespace() -> str | None:
    """Return an ID of the PID namespace. None if the system has no PID namespaces."""
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return None


def process_start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since the machine started. None if it is not reported."""
    try:
        # The second field is the name of the program, in parentheses, and may contain spaces and parentheses.
        content = (_PROC / str(pid) / "stat").read_text("ascii", errors="replace")
        return int(content.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def path_in_children(fd: int) -> str | None:
    """Return a path under which child processes can open a file without a name. None if the system has none."""
    return f"{_PROC}/{os.getpid()}/fd/{fd}" if sys.platform == "linux" else None


def lower_thread_priority() -> None:
    """Give the training precedence for the processor over this thread. Only Linux has a niceness for each thread.

    Measured on a machine whose cores are all busy with training, while 200 MB are written: without this, an iteration
    takes 2.8 times as long as otherwise, at niceness 10 1.2 times, and at niceness 13 no longer than otherwise. The
    writing takes 0.5 s, 3 s, and 5 s. At niceness 19 it takes 19 s.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 13)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that was started with ``BACKGROUND_OPTIONS``, and its children, except on Windows."""
    if sys.platform == "win32":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def host_name() -> str:
    """Return the name of this machine."""
    if sys.platform == "win32":
        return platform.node()
    return os.uname().nodename


def lower_process_priority() -> None:
    """Give other processes precedence for the processor. On Windows, ``BACKGROUND_OPTIONS`` does this."""
    if sys.platform != "win32":
        os.nice(10)


def raise_file_limit() -> None:
    """Allow as many open files as the system permits. Windows has no such limit.

    Raises:
        OSError: If the system refuses the limit.
        ValueError: If the system refuses the limit.
    """
    if sys.platform != "win32":
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def idle_seconds() -> float | None:
    """Return the total idle time of all cores since the machine started. None if the system does not report it."""
    if sys.platform == "win32":
        return None
    try:
        words = (_PROC / "stat").read_text("ascii").partition("\n")[0].split()
        return (int(words[4]) + int(words[5])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def make_nonblocking(fd: int) -> None:
    """Let writes to a full pipe fail instead of waiting. Python before 3.12 cannot do this on Windows."""
    if sys.platform != "win32" or sys.version_info >= (3, 12):
        os.set_blocking(fd, False)


def wait_for_input(fd: int, seconds: float) -> bool:
    """Wait until a pipe can be read or is closed. Return False if neither happens in time."""
    if sys.platform == "win32":
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if _winapi.PeekNamedPipe(msvcrt.get_osfhandle(fd), 0)[0]:
                    return True
            except OSError:  # the other end is closed
                return True
            time.sleep(_PIPE_POLL_SECONDS)
        return False
    poll = select.poll()  # select() refuses descriptors from 1,024 on
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def after_fork_in_child(function: Callable[[], None]) -> None:
    """Call a function in each forked child. Windows cannot fork."""
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=function)
