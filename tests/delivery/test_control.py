"""Requests to the process that delivers a run."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from pte_tracking._delivery import control
from pte_tracking._delivery.control import Control, ControlReader, request_handover, request_retry
from pte_tracking._store.layout import CONTROL, CONTROL_LOCK, DELIVERY
from pte_tracking._store.lock import Lock


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / DELIVERY).mkdir()
    return tmp_path


def test_requests_are_counted_separately(directory: Path) -> None:
    reader = ControlReader(directory)
    assert reader.read() == Control()
    request_retry(directory)
    request_retry(directory)
    request_handover(directory)
    assert reader.read() == Control(retry=2, handover=1)
    assert json.loads((directory / "delivery" / "control.json").read_bytes()) == {"retry": 2, "handover": 1}


def test_handover_request_counts_from_creation_of_reader(directory: Path) -> None:
    request_handover(directory)
    reader = ControlReader(directory)
    request_retry(directory)
    assert not reader.is_handover_requested()
    request_handover(directory)
    assert reader.is_handover_requested()
    assert not ControlReader(directory).is_handover_requested()


def test_requests_for_other_runs_are_not_seen(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name / DELIVERY).mkdir(parents=True)
    readers = [ControlReader(tmp_path / name) for name in "ab"]
    request_handover(tmp_path / "a")
    assert [reader.is_handover_requested() for reader in readers] == [True, False]


def test_read_of_unchanged_file_costs_one_stat(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request_retry(directory)
    reader = ControlReader(directory)
    reader.read()
    calls: list[Any] = []
    stat = os.stat

    def counting_stat(path: Any) -> os.stat_result:
        calls.append(path)
        return stat(path)

    monkeypatch.setattr(os, "stat", counting_stat)
    monkeypatch.setattr(control, "_read", lambda path: pytest.fail("the file was read"))
    for _ in range(10):
        assert reader.read().retry == 1
    assert calls == [directory / CONTROL] * 10


def test_concurrent_requests_are_all_counted(directory: Path) -> None:
    def request() -> None:
        for _ in range(10):
            request_retry(directory)
            request_handover(directory)

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ControlReader(directory).read() == Control(retry=40, handover=40)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"retry": "x"}', b"[" * 10_000])
def test_damaged_file_is_replaced_by_next_request(directory: Path, content: bytes) -> None:
    (directory / CONTROL).write_bytes(content)
    reader = ControlReader(directory)
    assert reader.read() == Control()
    request_retry(directory)
    assert reader.read() == Control(retry=1)


def test_request_that_cannot_be_written_is_logged(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "_LOCK_TIMEOUT_SECONDS", 0.05)
    held = Lock(directory / CONTROL_LOCK)
    request_retry(directory)
    held.release()
    (line,) = caplog.messages
    assert "the request was not written" in line
    assert not (directory / CONTROL).exists()


def test_request_leaves_no_temporary_file(directory: Path) -> None:
    request_retry(directory)
    assert sorted(os.listdir(directory / DELIVERY)) == ["control.json", "control.json.lock"]
