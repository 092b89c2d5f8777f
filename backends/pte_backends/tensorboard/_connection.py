"""A run's event file: appended to, and made again where something that it shows is taken back.

Readers keep their place in the file that they read and never go back, so that nothing in it may change but its
end. Everything else takes a new file with a later name, which begins with what makes readers forget the old
one. The new file appears whole. The old one is emptied and stays for a day: TensorBoard's own reader would wait
for ever for a file that is gone.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tensorboard.compat.proto import event_pb2

from pte_backends.tensorboard import _records, _values
from pte_backends.tensorboard._summaries import Memory, Translation
from pte_tracking.sinks import (
    PREVIOUS,
    AnyEvent,
    RejectedEventError,
    Rewound,
    RunStarted,
    RunView,
    Status,
    sync_directory,
)

_CHUNK = 1 << 20
_DAY = 86_400
_STAMP = re.compile(r"events\.out\.tfevents\.(\d{10})\.")


class State(msgspec.Struct):
    """What is saved with the position.

    Attributes:
        file: The event file.
        size: Its bytes.
        last: The last event with a record in it.
        is_ended: Whether it holds the run's end.
        memory: See there.
    """

    file: str = ""
    size: int = 0
    last: int = 0
    is_ended: bool = False
    memory: Memory = msgspec.field(default_factory=Memory)


class TensorBoardConnection:
    """The open event file.

    Args:
        run: The run.
        state: What an earlier connection returned from :meth:`state`.
    """

    def __init__(self, run: RunView, state: Mapping[str, Any]) -> None:
        self._run = run
        self._state = msgspec.convert(dict(state), State)
        self._translation = Translation(run, self._state.memory)
        self._fd = -1
        #: The last event of the last write.
        self._written: int | None = None
        self._temporary.unlink(missing_ok=True)
        self._settle()

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Append the events' records; make the file again at a rewind, and where the events are in it already."""
        first, known = events[0], self._state
        if isinstance(first, Rewound):
            with self._all_or_nothing():
                self._rewind(first)
        # A row of very many values comes in several parts, with the same seq.
        elif first.seq <= known.last and first.seq != self._written:
            with self._all_or_nothing():
                self._cut(first.seq - 1)
        elif known.is_ended and any(isinstance(event, RunStarted) for event in events):
            with self._all_or_nothing():
                self._replace(self._kept())
        with self._all_or_nothing():
            self._extend(events)
        self._written = events[-1].seq

    def state(self) -> dict[str, Any]:
        """The file, its size, and what the translation remembers."""
        plain: dict[str, Any] = msgspec.to_builtins(self._state)
        return plain

    def close(self, status: Status | None) -> None:
        """Write how the run ended, after bringing up to date what only a new file can show."""
        if status is not None:
            with self._all_or_nothing():
                self._finish(status)
            os.fsync(self._fd)
        os.close(self._fd)

    # -- the file ------------------------------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self._run.directory / self._state.file

    @property
    def _temporary(self) -> Path:
        # Without the word "tfevents", by which readers know event files.
        return self._run.directory / f".tensorboard.{self._run.id}.tmp"

    def _settle(self) -> None:
        """Find the file, and put right what a crash or a user has done to it."""
        known = self._state
        files = sorted(self._run.directory.glob(f"events.out.tfevents.*.{self._run.id}"))
        current = files.pop() if files else None
        for path in files:
            _empty(path)
        if known.file and (
            current is None
            or current.name < known.file
            or (current.name == known.file and current.stat().st_size < known.size)
        ):
            self._make_again(known.memory.seq)
        elif current is None:
            self._replace([], self._left_by_another_run())
        else:
            self._open(current)

    def _left_by_another_run(self) -> dict[str, str]:
        """The tags of the run that was moved aside for this one: a TensorBoard that is running shows them still."""
        files = self._run.directory.glob(f"{PREVIOUS}/*/events.out.tfevents.*")
        moved = max(files, key=lambda path: path.name, default=None)
        if moved is None:
            return {}
        (self._run.directory / moved.name).touch()  # an empty file, where TensorBoard's own reader misses one
        return _values.shown(_records.message(raw) for _, raw in _records.read(moved))

    def _open(self, path: Path) -> None:
        known = self._state
        if path.name != known.file:
            known.file, known.size, known.last, known.is_ended = path.name, 0, 0, False
            known.memory.is_stale = True  # what the file begins with is not known
        for seq, raw in _records.read(path, known.size):
            if not _records.is_intact(raw):
                break
            known.size += len(raw)
            known.last = seq or known.last
            known.is_ended |= seq == 0 and _values.SESSION_END in raw
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._fd, known.size)

    def _append(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self._state.size)
            self._state.size += written
            view = view[written:]

    def _replace(self, kept: Iterable[tuple[int, bytes]], vanished: Mapping[str, str] | None = None) -> None:
        """Go on with a new file that holds these labelled _records."""
        last, old, path = 0, self._state.file, self._new_path()
        with open(self._temporary, "wb") as file:
            file.write(self._translation.begin(vanished or {}))
            for seq, raw in kept:
                file.write(raw)
                last = seq or last
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        fd = os.open(self._temporary, os.O_RDWR | os.O_CLOEXEC)
        os.replace(self._temporary, path)
        sync_directory(path.parent)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        known = self._state
        known.file, known.size, known.last, known.is_ended = path.name, size, last, False
        if old:
            _empty(self._run.directory / old)

    def _kept(self, seq: int | None = None) -> Iterator[tuple[int, bytes]]:
        """The records of the history up to an event, less the replaced ones."""
        replaced = {old for old, _ in self._state.memory.replaced}
        for label, raw in _records.read(self._path):
            if label and (seq is None or label <= seq) and label not in replaced:
                yield label, raw

    def _make_again(self, seq: int, vanished: Mapping[str, str] | None = None) -> None:
        """Go on with a new file that is made from the journal."""
        before = self._state.memory
        memory = Memory(has_layout=before.has_layout, hollow=before.hollow)
        self._restore(msgspec.structs.replace(self._state, memory=memory))
        self._replace(self._translated(self._run.history(seq)), vanished)

    def _translated(self, events: Iterable[AnyEvent]) -> Iterator[tuple[int, bytes]]:
        for event in events:
            # A picture that is gone from the disk was told of when it was first delivered.
            with contextlib.suppress(RejectedEventError):
                made = self._translation.translate(event)
                if made:
                    yield event.seq, made

    def _new_path(self) -> Path:
        """A path that sorts behind all event files in the directory, and a lost one, whatever clocks say."""
        names = [*os.listdir(self._run.directory), self._state.file]
        stamps = [int(match[1]) for name in names if (match := _STAMP.match(name))]
        stamp = max([int(time.time()), *(stamp + 1 for stamp in stamps)])
        return self._run.directory / f"events.out.tfevents.{stamp:010d}.{self._run.id}"

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """After an error the events, or all but a bad one, come again: they shall find everything as it was."""
        before = copy.deepcopy(self._state)
        try:
            yield
        except BaseException:
            if before.file == self._state.file:
                self._restore(before)
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, before.size)
            raise

    def _restore(self, state: State) -> None:
        self._state, self._translation.memory = state, state.memory

    # -- what is written -----------------------------------------------------------------------------------------------

    def _extend(self, events: Iterable[AnyEvent]) -> None:
        data = bytearray()
        for event in events:
            made = self._translation.translate(event)
            if made:
                data += made
                self._state.last = event.seq
            if len(data) > _CHUNK:
                self._append(data)
                data = bytearray()
        self._append(data)

    def _rewind(self, rewound: Rewound) -> None:
        seq, known = rewound.to_seq, self._state
        if known.last <= seq and not known.is_ended:
            self._translation.cut(seq, self._last_epoch(seq))
            return
        vanished = self._vanished(rewound)
        if any(old <= seq < new for old, new in known.memory.replaced):
            self._make_again(seq, vanished)
        else:
            self._cut(seq, vanished)

    def _cut(self, seq: int, vanished: Mapping[str, str] | None = None) -> None:
        self._translation.cut(seq, self._last_epoch(seq))
        self._replace(self._kept(seq), vanished)

    def _last_epoch(self, seq: int) -> int:
        """The last step up to an event at which an epoch is shown; -1 if there is none."""
        last, needle = b"", _values.needle(_values.EPOCH)
        for _, raw in self._kept(seq):
            if needle in raw:
                last = raw
        return event_pb2.Event.FromString(_records.message(last)).step if last else -1

    def _vanished(self, rewound: Rewound) -> dict[str, str]:
        """The tags that lose all their points, each with the plugin that shows it."""
        gone = {tag: plugin for event in self._run.superseded(rewound) for tag, plugin in _values.tags(event).items()}
        needles = {tag: _values.needle(tag) for tag in gone}
        for _, raw in self._kept(rewound.to_seq):
            for tag in [tag for tag, needle in needles.items() if needle in raw]:
                del needles[tag]
            if not needles:
                break
        return {tag: gone[tag] for tag in needles}

    def _finish(self, status: Status) -> None:
        known = self._state
        if known.is_ended or known.memory.is_stale:
            self._replace(self._kept())
        if known.memory.params:
            self._append(self._translation.end(status == "FINISHED"))
            known.is_ended = True


def _empty(path: Path) -> None:
    """Leave nothing in a file that another one took the place of; remove it once no reader can be in it."""
    with contextlib.suppress(OSError):
        found = path.stat()
        if found.st_size:
            os.truncate(path, 0)
        elif time.time() - found.st_mtime > _DAY:
            path.unlink()
