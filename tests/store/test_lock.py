"""Locks that end with their process and are not inherited."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pte_tracking._platform import locks, processes
from pte_tracking._store import lock
from pte_tracking._store.lock import Lock, LockedError, LockHolder

# Windows has other locks, which tests/test_windows.py simulates.
fcntl = pytest.importorskip("fcntl")

# These tests fork on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

HOLD = "import sys, pathlib, time; from pte_tracking._store.lock import Lock; \
held = Lock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def in_child(function: Callable[[], bool]) -> bool:
    """Call a function in a forked child. Return its result."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if function() else 3
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
    holder = lock.holder(path)
    assert holder is not None
    assert (holder.pid, holder.host) == (other.pid, os.uname().nodename)
    with pytest.raises(LockedError, match=f"held by process {other.pid} on ") as info:
        Lock(path)
    assert info.value.holder == holder
    assert not info.value.is_own_process
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert lock.holder(path) is None
    Lock(path, timeout=1).release()


def test_lock_twice_in_one_process_raises(path: Path) -> None:
    held = Lock(path)
    with pytest.raises(LockedError, match=f"held by process {os.getpid()} on ") as info:
        Lock(path)
    assert info.value.is_own_process
    with pytest.raises(LockedError):
        Lock(path.parent / "." / "lock")
    assert lock.holder(path) == LockHolder.current()
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
    assert in_child(try_in_child), "a child that queried the lock and ended has released it"
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


@pytest.fixture
def unnamed_holder(path: Path) -> Iterator[int]:
    """Process that holds the lock and has not written to the file."""
    path.touch()
    pipe_in, pipe_out = os.pipe()
    other = os.fork()
    if not other:
        fd = os.open(path, os.O_RDWR)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(pipe_out, b"held")
        signal.pause()
        os._exit(0)
    os.read(pipe_in, 4)
    yield other
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    os.close(pipe_in)
    os.close(pipe_out)


def record(**changes: Any) -> bytes:
    """Content of a lock file: that of this process, except for the changes."""
    return msgspec.json.encode(msgspec.structs.replace(LockHolder.current(), **changes))


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"{}",
        b'{"pid": -1}',
        b'{"pid": "1"}',
        b"1 on host\n",
        record(pid=1),
        b"[" * 10_000,
    ],
    ids=["empty", "binary", "torn", "list", "no-fields", "negative", "text", "other-format", "init", "deep"],
)
def test_holder_never_reports_previous_holder(path: Path, unnamed_holder: int, before: bytes) -> None:
    path.write_bytes(before)
    named = record(pid=unnamed_holder)
    later = threading.Timer(0.2, path.write_bytes, [named])
    assert lock.is_held(path)
    unknown = lock.holder(path)
    assert unknown == LockHolder()
    assert str(unknown) == "an unknown process"
    assert not unknown.is_local_process()
    later.start()
    try:
        with pytest.raises(LockedError) as info:
            Lock(path)
        assert info.value.holder == lock.holder(path) == msgspec.json.decode(named, type=LockHolder)
    finally:
        later.join()


@pytest.mark.parametrize("changes", [{"host": "container"}, {"pid_namespace": "pid:[1]"}, {"boot_id": "other"}])
def test_holder_in_other_namespace_is_read_from_lock_file(
    path: Path, unnamed_holder: int, changes: dict[str, str]
) -> None:
    path.write_bytes(record(pid=7, **changes))
    holder = lock.holder(path)
    assert holder is not None
    assert str(holder) == f"process 7 on {changes.get('host', os.uname().nodename)}"
    assert not holder.is_local_process()


def test_is_local_process_requires_same_machine_namespace_and_start_time() -> None:
    current = LockHolder.current()
    assert current.is_local_process()
    for field in ("host", "boot_id", "pid_namespace"):
        assert not msgspec.structs.replace(current, **{field: "other"}).is_local_process()
    assert not msgspec.structs.replace(current, pid=1).is_local_process()
    assert not msgspec.structs.replace(current, start_time=1).is_local_process()
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert not msgspec.structs.replace(current, pid=ended.pid).is_local_process()


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_holder_record_identifies_process() -> None:
    current = LockHolder.current()
    assert current.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert current.pid_namespace == os.readlink("/proc/self/ns/pid")
    assert current.start_time == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


def test_is_local_process_without_proc_compares_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    current = LockHolder.current()
    assert current == LockHolder(os.getpid(), os.uname().nodename)
    assert current.is_local_process()
    assert not msgspec.structs.replace(current, host="other").is_local_process()


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


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems have only POSIX record locks")
def test_lock_is_kept_when_its_file_is_read_and_closed(path: Path) -> None:
    held = Lock(path)
    path.read_bytes()
    shutil.copytree(path.parent, path.parent / "backup")
    assert in_child(lambda: lock.holder(path) == msgspec.json.decode(path.read_bytes(), type=LockHolder))
    with open(path, "rb") as file, pytest.raises(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    held.release()
    assert lock.holder(path) is None


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems have only POSIX record locks")
def test_holder_never_reports_ended_holder_of_description_lock(path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    held = Lock(path)
    path.write_bytes(record(pid=ended.pid, start_time=1))
    later = threading.Timer(0.2, path.write_bytes, [record()])
    later.start()
    expected = LockHolder.current()
    try:
        assert in_child(lambda: lock.holder(path) == expected)
    finally:
        later.join()
        held.release()


def fail_with(number: int, commands: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let locks fail as on a file system without them, which tests cannot mount."""
    real = fcntl.fcntl

    def fcntl_without_locks(fd: int, command: int, *arguments: Any) -> Any:
        if command in commands:
            raise OSError(number, os.strerror(number))
        return real(fd, command, *arguments)

    monkeypatch.setattr(fcntl, "fcntl", fcntl_without_locks)


ALL_COMMANDS = {value for name, value in vars(fcntl).items() if name.endswith(("GETLK", "SETLK", "SETLKW"))}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_lock_on_file_system_without_locks_raises_and_names_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def lockf_without_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    path.touch()
    fail_with(number, ALL_COMMANDS, monkeypatch)
    monkeypatch.setattr(fcntl, "lockf", lockf_without_locks)
    with pytest.raises(OSError, match="does not support file locks") as caught:
        Lock(path, timeout=1)
    assert str(caught.value).startswith(f"{path.parent}: ")
    assert os.strerror(number) in str(caught.value)
    assert lock.holder(path) is None
    assert not lock.is_held(path)


@pytest.mark.skipif(platform.system() != "Linux", reason="other systems have only POSIX record locks")
def test_lock_without_description_locks_is_record_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(errno.EINVAL, {fcntl.F_OFD_SETLK}, monkeypatch)
    held = Lock(path)
    pid = os.getpid()
    assert in_child(lambda: lock._query(path, locks.holding_pid, 0) == pid)
    held.release()
    assert lock.holder(path) is None


def test_lock_file_that_is_a_link_raises_and_keeps_target(path: Path) -> None:
    target = path.with_name("notes")
    target.write_text("text")
    path.symlink_to(target)
    with pytest.raises(OSError, match=str(path)):
        Lock(path)
    assert target.read_text() == "text"


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
