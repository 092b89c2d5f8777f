"""Locks that end with their process and are not inherited."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pte_tracking._store import lock
from pte_tracking._store.lock import Lock, LockedError

# Forking is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

HOLD = "import sys, pathlib, time; from pte_tracking._store.lock import Lock; \
held = Lock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def in_child(what: Callable[[], bool]) -> bool:
    """Runs it in a forked child."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if what() else 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_lock_of_other_process_is_released_by_sigkill(path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert other.stdout
    with other.stdout:
        assert other.stdout.readline() == b"held\n"
    name = f"{other.pid} on {os.uname().nodename}"
    assert lock.holder(path) == name
    with pytest.raises(LockedError) as info:
        Lock(path)
    assert info.value.holder == name
    assert str(other.pid) in str(info.value)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert lock.holder(path) is None
    Lock(path, timeout=1).release()


def test_lock_twice_in_one_process_raises(path: Path) -> None:
    held = Lock(path)
    with pytest.raises(LockedError, match=f"held by process {os.getpid()} on "):
        Lock(path)
    with pytest.raises(LockedError):
        Lock(path.parent / "." / "lock")
    assert lock.holder(path) == f"{os.getpid()} on {os.uname().nodename}"
    held.release()
    assert lock.holder(path) is None
    Lock(path).release()


def test_lock_survives_queries_and_failed_attempts(path: Path) -> None:
    held = Lock(path)
    for _ in range(3):
        lock.holder(path)
        with pytest.raises(LockedError):
            Lock(path)
    assert in_child(lambda: lock.holder(path) is not None)
    held.release()


def test_lock_is_not_inherited_by_forked_child(path: Path) -> None:
    held = Lock(path)

    def try_in_child() -> bool:
        if lock.holder(path) is None:
            return False
        try:
            Lock(path)
        except LockedError:
            return True
        return False

    assert in_child(try_in_child)
    assert in_child(try_in_child), "a child that asked and ended has taken the lock away"
    held.release()


def test_lock_of_dead_parent_is_not_kept_by_running_child(path: Path) -> None:
    pipe_in, pipe_out = os.pipe()
    parent = os.fork()
    if not parent:
        Lock(path)
        child = os.fork()
        if child:
            os.write(pipe_out, f"{child}\n".encode())
            os._exit(0)
        signal.pause()
        os._exit(0)
    os.waitpid(parent, 0)
    child = int(os.read(pipe_in, 20))
    try:
        assert lock.holder(path) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(pipe_in)
        os.close(pipe_out)


@pytest.mark.parametrize("before", ["", f"1 on {os.uname().nodename}\n"])
def test_holder_never_reports_previous_holder(path: Path, before: str) -> None:
    path.write_text(before)
    pipe_in, pipe_out = os.pipe()
    other = os.fork()
    if not other:
        fd = os.open(path, os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(pipe_out, b"held")
        signal.pause()
        os._exit(0)
    os.read(pipe_in, 4)
    name = f"{other} on {os.uname().nodename}"
    later = threading.Timer(0.2, path.write_text, [f"{name}\n"])
    try:
        assert lock.is_held(path)
        assert lock.holder(path) == "unknown"
        later.start()
        with pytest.raises(LockedError) as info:
            Lock(path)
        assert info.value.holder == name
        assert lock.holder(path) == name
    finally:
        later.join()
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        os.close(pipe_in)
        os.close(pipe_out)
    assert not lock.is_held(path)


def test_holder_in_container_keeps_name_from_lock_file(path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    assert other.stdout
    with other.stdout:
        assert other.stdout.readline() == b"held\n"
    path.write_text("7 on container\n")
    assert lock.holder(path) == "7 on container"
    other.kill()
    other.wait()


def test_holder_without_lock_file_is_none(path: Path) -> None:
    assert lock.holder(path) is None
    assert not path.exists()


def test_lock_on_full_disk_raises_and_holds_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            Lock(path)
    Lock(path).release()


def test_lock_is_kept_during_concurrent_queries(path: Path) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            lock.holder(path)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            held = Lock(path, timeout=5)
            assert in_child(lambda: lock.holder(path) is not None)
            held.release()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
