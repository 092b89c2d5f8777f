"""Continuation of journals that contain unreadable lines."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pte_tracking._store import journal_end
from pte_tracking._store.events import Metrics, Rewound
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.journal_end import check_journal, find_damage
from pte_tracking._store.journal_reader import find_events, read, read_effective, read_effective_reversed
from pte_tracking._store.manifest import RunNotFoundError

NEWER = b'{"kind":"weather","seq":4,"time":1.5,"sky":"blue"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def marks(path: Path) -> list[JournalPosition]:
    """Positions after the events of a journal with 3 rows."""
    journal = Journal(path)
    marks = []
    for step in (1, 2, 3):
        journal.append(Metrics, step, {"a": 1.0})
        marks.append(journal.end)
    journal.close()
    return marks


def steps(path: Path) -> list[int]:
    return [event.step for event, _ in read_effective(path) if isinstance(event, Metrics)]


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def compressed(data: bytes) -> bytes:
    return gzip.compress(data)


def reencoded(data: bytes) -> bytes:
    return data.decode().encode("utf-16")


def shortened(data: bytes) -> bytes:
    return gzip.compress(data).replace(b"\n", b"")


def with_garbage(data: bytes) -> bytes:
    return data + b"garbage\n"


@pytest.mark.parametrize("damage", [compressed, reencoded, shortened, with_garbage])
@pytest.mark.usefixtures("marks")
def test_continue_journal_with_unreadable_end_is_refused_and_changes_nothing(path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(RunNotFoundError, match="cannot be read"):
        Journal(path)
    with pytest.raises(RunNotFoundError, match="nothing was changed"):
        check_journal(path, None)
    assert path.read_bytes() == damaged
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("tail", [NEWER, b"\n", b"\n\n"])
def test_continue_journal_after_readable_line_keeps_it(path: Path, marks: list[JournalPosition], tail: bytes) -> None:
    before = path.read_bytes() + tail
    path.write_bytes(before)
    journal = Journal(path)
    journal.append(Metrics, 4, {"a": 1.0})
    journal.close()
    assert path.read_bytes().startswith(before)
    assert steps(path) == [1, 2, 3, 4]
    assert [event.seq for event, _ in read(path)][-1] == (5 if tail is NEWER else 4)


@pytest.mark.usefixtures("marks")
def test_unterminated_bytes_that_are_no_event_are_copied_and_cut(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(path, b"\xff\xfenothing")
    journal = Journal(path)
    journal.append(Metrics, 4, {"a": 1.0})
    journal.close()
    assert steps(path) == [1, 2, 3, 4]
    assert path.with_name("journal.damaged-1").read_bytes() == b"\xff\xfenothing"
    assert "journal.damaged-1" in caplog.text


@pytest.mark.parametrize(
    "tail", [b"garbage\n", b"garbage\nmore", b"\0" * 100 + b"\n", gzip.compress(b"x" * 1000, mtime=0)]
)
def test_damage_after_target_is_copied_and_rewound(path: Path, marks: list[JournalPosition], tail: bytes) -> None:
    append(path, tail)
    check_journal(path, marks[1])
    for number in (1, 2):
        expected = path.read_bytes()[marks[1].position :]
        journal = Journal(path, marks[1])
        assert path.with_name(f"journal.damaged-{number}").read_bytes() == expected
        journal.rewind(marks[1], 2)
        journal.append(Metrics, 30 + number, {"a": 1.0})
        journal.close()
        assert steps(path) == [1, 2, 30 + number]
        if b"\n" not in tail:
            break
    seqs = [event.seq for event, _ in read(path)]
    assert seqs == sorted(set(seqs))


def test_damage_in_the_middle_after_target_is_copied(path: Path, marks: list[JournalPosition]) -> None:
    data = bytearray(path.read_bytes())
    data[marks[1].position + 3] = 0
    path.write_bytes(data)
    check_journal(path, marks[0])
    journal = Journal(path, marks[0])
    journal.rewind(marks[0], 1)
    journal.close()
    assert path.with_name("journal.damaged-1").read_bytes() == data[marks[0].position :]
    assert steps(path) == [1]


@pytest.mark.parametrize("offset", [0, 5, 60])
def test_damage_before_target_is_refused(path: Path, marks: list[JournalPosition], offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[marks[0].position + offset] = ord("\n") if offset == 60 else 0
    path.write_bytes(data)
    with pytest.raises(RunNotFoundError, match="located before the snapshot"):
        check_journal(path, marks[2])
    check_journal(path, marks[0])


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 1 << 20])
def test_find_damage_returns_first_unreadable_line(
    path: Path, marks: list[JournalPosition], monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(journal_end, "_CHUNK_BYTES", chunk_bytes)
    size = path.stat().st_size
    assert find_damage(path, 0, size) is None
    assert find_damage(path, marks[0].position, marks[1].position) is None
    assert find_damage(path, 0, size - 1) == marks[1].position
    append(path, b"\n" + NEWER + b"garbage\n")
    assert find_damage(path, 0, size + len(NEWER) + 1) is None
    assert find_damage(path, 0, path.stat().st_size) == size + len(NEWER) + 1


def test_repeated_lines_are_read_once(path: Path, marks: list[JournalPosition]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[1], lines[2], lines[2]]))
    assert steps(path) == [1, 2, 3]
    assert [event.step for event in read_effective_reversed(path) if isinstance(event, Metrics)] == [3, 2, 1]
    assert [event.step for event, _ in find_events(path, Metrics)] == [1, 2, 3]
    # A reader that continues behind the first copy does not read the second one.
    assert [event.seq for event, _ in read(path, marks[1].position)] == [3]
    journal = Journal(path)
    journal.append(Metrics, 4, {"a": 1.0})
    journal.rewind(marks[1], 2)
    journal.append(Metrics, 30, {"a": 1.0})
    journal.close()
    assert steps(path) == [1, 2, 30]
    assert len(list(find_events(path, Rewound))) == 1


ROW = b'{"kind":"metrics","seq":4,"time":1.5,"step":4,"values":{"a":1.0}}\n'


@pytest.mark.parametrize(
    ("tail", "seq"),
    [
        pytest.param(bytes(40) + ROW, 4, id="zeros before an event"),
        pytest.param(ROW[:20] + bytes(40) + ROW, 4, id="torn event before an event"),
        pytest.param(ROW[:-1] + b"\0" + ROW, 4, id="lost newline"),
        pytest.param(bytes(40) + ROW[40:], 3, id="lost beginning of the last event"),
        pytest.param(bytes(40), 3, id="zeros at the end"),
        pytest.param(ROW[:20] + bytes(40), 3, id="torn event and zeros at the end"),
        pytest.param(bytes(40) + ROW[40:] + bytes(40) + ROW[:20], 3, id="zeros and a torn event"),
    ],
)
@pytest.mark.usefixtures("marks")
def test_continue_journal_after_loss_of_power_appends_after_the_zeros(path: Path, tail: bytes, seq: int) -> None:
    before = path.read_bytes()
    append(path, tail)
    check_journal(path, None)
    journal = Journal(path)
    assert journal.end.seq == seq
    journal.append(Metrics, 9, {"a": 9.0})
    journal.close()
    assert path.read_bytes().startswith(before)
    assert steps(path)[:3] == [1, 2, 3]
    assert steps(path)[-1] == 9


def test_continue_file_of_zeros_and_foreign_lines_is_refused(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b" + bytes(8) + b"\n" + bytes(8) + b"x\n")
    with pytest.raises(RunNotFoundError, match="cannot be read"):
        Journal(path)
    assert path.stat().st_size == 21
