"""Startup hook that gives Python on Linux the restrictions of Windows. Python imports it from ``PYTHONPATH``.

The real modules of Windows exist only there. The substitutes below behave as documented: locks belong to a descriptor,
open files can neither be renamed nor deleted, directories cannot be opened, and files that are open for reading cannot
be flushed. What other code calls is absent: user IDs, access at a position, links, and most signals.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import logging.handlers  # noqa: F401  # modules that take the system into account when they are imported
import multiprocessing.util  # noqa: F401
import os
import random  # noqa: F401
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile  # noqa: F401
import termios
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ABSENT = {
    os: "pread pwrite geteuid getuid nice setpriority O_NOFOLLOW O_NONBLOCK O_CLOEXEC O_DIRECTORY",
    signal: "SIGHUP SIGQUIT SIGKILL SIGSTOP SIGCHLD SIGUSR1 SIGUSR2 SIGXCPU",
}
_LOCK = struct.Struct("hhqqi")
_NAMES = ("exchange", "files", "locks", "processes", "signals")
_real_open, _real_fsync = os.open, os.fsync


def _locking(fd: int, mode: int, count: int) -> None:
    kind = fcntl.F_UNLCK if mode == 0 else fcntl.F_WRLCK
    request = _LOCK.pack(kind, os.SEEK_SET, os.lseek(fd, 0, os.SEEK_CUR), count, 0)
    with contextlib.ExitStack() as stack:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            # Linux locks no file that is open for reading. Only queries do this, which unlock it at once.
            fd = _real_open(f"/proc/self/fd/{fd}", os.O_RDWR)
            stack.callback(os.close, fd)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
        except OSError:
            raise PermissionError(errno.EACCES, "Permission denied") from None


def _peek_named_pipe(handle: int, size: int) -> tuple[int, int]:
    available = array.array("i", [0])
    fcntl.ioctl(handle, termios.FIONREAD, available)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not available[0] and any(event & select.POLLHUP for _, event in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, "The pipe has been ended")
    return available[0], 0


def _open_paths() -> set[str]:
    """Return the paths of all files that this process, its parent, or its children have open."""
    children = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    paths = set()
    for pid in (os.getpid(), os.getppid(), *children):
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):  # closed, or the process has ended
                paths.add(os.readlink(link))
    return paths


def _refusing_open_files(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if "dir_fd" not in options or options["dir_fd"] is None:
            real = [os.path.realpath(path) for path in args if isinstance(path, str | os.PathLike)]
            if any(path == name or name.startswith(path + "/") for name in _open_paths() for path in real):
                raise PermissionError(errno.EACCES, "The process cannot access the file", os.fspath(args[0]))
        return original(*args, **options)

    return call


def _open_files_only(path: Any, flags: int, *args: Any, **options: Any) -> int:
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
    return _real_open(path, flags, *args, **options)


def _fsync_written_files(fd: Any) -> None:
    number = fd if isinstance(fd, int) else fd.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    _real_fsync(number)


def _no_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "A required privilege is not held by the client")


def _import_platform() -> None:
    """Import the modules of the package that depend on the system as if on Windows."""
    substitutes = {
        "msvcrt": types.SimpleNamespace(
            locking=_locking, LK_UNLCK=0, LK_LOCK=1, LK_NBLCK=2, get_osfhandle=lambda handle: handle
        ),
        "_winapi": types.SimpleNamespace(PeekNamedPipe=_peek_named_pipe),
        "fcntl": None,  # its import fails
        "resource": None,
    }
    kept = {name: sys.modules.get(name) for name in substitutes}
    sys.modules.update(substitutes)  # type: ignore[arg-type]
    sys.platform, system = "win32", sys.platform
    try:
        for name in _NAMES:
            module = __import__(f"pte_tracking._platform.{name}", fromlist=[name])
            module.sys = types.SimpleNamespace(platform="win32", version_info=sys.version_info)
    finally:
        sys.platform = system
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _restrict() -> None:
    sys.modules["pwd"] = None  # type: ignore[assignment]
    os.O_BINARY = 0  # type: ignore[attr-defined]
    for name in ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW", "BELOW_NORMAL_PRIORITY_CLASS"):
        setattr(subprocess, name, 0)
    socket.gethostname()
    _import_platform()
    from pte_tracking._platform import signals

    signals.ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGABRT)
    signals.UNCATCHABLE_SIGNALS = signals.CHILD_SIGNALS = ()
    for module, names in _ABSENT.items():
        for name in names.split():
            delattr(module, name)
    os.open, os.fsync, os.symlink = _open_files_only, _fsync_written_files, _no_links  # type: ignore[assignment]
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, _refusing_open_files(getattr(os, name)))


if os.environ.get("PTE_TEST_WINDOWS"):
    _restrict()
