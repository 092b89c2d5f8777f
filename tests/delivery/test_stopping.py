"""Stopping the delivery of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pte_tracking._delivery import stopping
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY, DELIVERY_LOCK
from pte_tracking._store.lock import LockedError, LockHolder

HOLD = """
import pathlib, sys
from pte_tracking._store.lock import Lock
held = Lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / DELIVERY).mkdir()
    monkeypatch.setattr(stopping, "_LOCAL_STOP_SECONDS", 0.2)
    monkeypatch.setattr(stopping, "_REMOTE_STOP_SECONDS", 0.1)
    return tmp_path


@pytest.fixture
def other(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Process that holds the delivery lock and never hands over."""
    command = [sys.executable, "-c", HOLD, str(directory / DELIVERY_LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def other_host(holder: LockHolder) -> LockHolder:
    return msgspec.structs.replace(holder, host="elsewhere")


def other_namespace(holder: LockHolder) -> LockHolder:
    return msgspec.structs.replace(holder, pid_namespace="pid:[1]")


def other_boot(holder: LockHolder) -> LockHolder:
    return msgspec.structs.replace(holder, boot_id="other")


def other_start_time(holder: LockHolder) -> LockHolder:
    return msgspec.structs.replace(holder, start_time=1)


def unreadable(holder: LockHolder) -> LockHolder:
    return LockHolder()


def test_stop_delivery_without_process_returns_false(directory: Path) -> None:
    assert not stopping.stop_delivery(directory)


def test_stop_delivery_terminates_local_process_that_keeps_lock(
    directory: Path, other: subprocess.Popen[bytes]
) -> None:
    assert stopping.stop_delivery(directory)
    assert other.wait(60) == -15
    assert not lock.is_held(directory / DELIVERY_LOCK)


@pytest.mark.parametrize("change", [other_host, other_namespace, other_boot, other_start_time, unreadable])
def test_stop_delivery_never_signals_process_that_it_cannot_identify(
    directory: Path,
    other: subprocess.Popen[bytes],
    change: Callable[[LockHolder], LockHolder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    signals: list[Any] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: signals.append(arguments))
    path = directory / DELIVERY_LOCK
    holder = lock.holder(path)
    assert holder is not None
    changed = change(holder)
    path.write_bytes(msgspec.json.encode(changed))
    with pytest.raises(LockedError) as info:
        stopping.stop_delivery(directory)
    # The holder of an open file description lock is known only from its record, which seems to be an old one here.
    reported = info.value.holder
    assert reported == (LockHolder() if change is other_start_time and sys.platform == "linux" else changed)
    assert f"waiting for {reported} to release the earlier run" in caplog.text
    assert signals == []
