"""Files with samples of system metrics."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from pte_tracking._store.layout import DELIVERY
from pte_tracking._store.lock import LockedError
from pte_tracking._store.samples import SampleWriter, node_name, read_samples, sample_files

KEY = "system/cpu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / DELIVERY).mkdir()
    return tmp_path


def append(folder: Path, node: str, *values: float) -> None:
    with contextlib.closing(SampleWriter(folder, node)) as writer:
        for value in values:
            writer.append({KEY: value})


def steps_and_values(folder: Path) -> list[tuple[int, object]]:
    return [(event.step, event.values[KEY]) for samples in read_samples(folder, {}) for event in samples.events]


def test_sample_writer_torn_line_is_replaced(folder: Path) -> None:
    append(folder, "n", 0.5, 1.5)
    path = folder / "system-n.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind":"metrics","seq":-3,"ti')
    assert steps_and_values(folder) == [(1, 0.5), (2, 1.5)]
    append(folder, "n", 2.5)
    assert steps_and_values(folder) == [(1, 0.5), (2, 1.5), (3, 2.5)]


def test_sample_writer_other_node_continues_numbers(folder: Path) -> None:
    append(folder, "a", 0.5, 1.5)
    append(folder, "b", 2.5)
    assert steps_and_values(folder) == [(1, 0.5), (2, 1.5), (3, 2.5)]


def test_sample_writer_second_writer_of_node_is_refused(folder: Path) -> None:
    with contextlib.closing(SampleWriter(folder, "n")), pytest.raises(LockedError):
        SampleWriter(folder, "n")


def test_sample_writer_link_out_of_directory_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("elsewhere") / "target"
    target.write_text("unchanged")
    (folder / "system-n.jsonl").symlink_to(target)
    with pytest.raises(OSError, match="link"):
        SampleWriter(folder, "n")
    assert target.read_text() == "unchanged"


def test_read_samples_links_and_pipes_are_skipped(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / DELIVERY).mkdir()
    append(elsewhere, "n", 0.5)
    (folder / "system-link.jsonl").symlink_to(elsewhere / "system-n.jsonl")
    os.mkfifo(folder / "system-pipe.jsonl")
    append(folder, "n", 1.5)
    assert [value for _, value in steps_and_values(folder)] == [1.5]


def test_read_samples_unusual_file_names_are_skipped(folder: Path) -> None:
    for name in ("system- a.jsonl", "system-\n.jsonl", "system-.jsonl"):
        (folder / name).touch()
    assert sample_files(folder) == []


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b'{"kind":"rewound","seq":9,"time":1,"to_seq":0,"to_position":0,"step":0}',
        b'{"kind":"metrics","seq":1,"time":1,"step":1,"values":{"train/loss":0}}',
        b'{"kind":"metrics","seq":1,"time":1,"step":-1,"values":{"system/cpu":0}}',
    ],
)
def test_read_samples_damaged_line_is_skipped(line: bytes, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(folder, "n", 0.5)
    path = folder / "system-n.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert steps_and_values(folder) == [(1, 0.5)]
    assert "damaged" in caplog.text


def test_read_samples_ends_exclude_later_samples(folder: Path) -> None:
    append(folder, "n", 0.5)
    (first,) = read_samples(folder, {})
    append(folder, "n", 1.5)
    (delivered,) = read_samples(folder, {}, {first.file: first.end})
    (pending,) = read_samples(folder, {first.file: first.end})
    assert delivered == first
    assert [event.step for event in pending.events] == [2]


def test_node_name_path_is_replaced_by_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_NODE_NAME", "../../etc/node")
    assert "/" not in node_name()
    assert not node_name().startswith(".")
