"""Event file writer that rebuilds the file after a rewind.

Readers remember their position in a file and never go back, so an existing file is only appended to. For any other
change the writer creates a new file with a later name. Its first records make readers forget the earlier file. The new
file is complete when it appears. The earlier file is emptied and deleted after a day, because TensorBoard's own reader
would wait indefinitely for a file that disappears.
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

from pte_backends.tensorboard import _order, _records, _values
from pte_backends.tensorboard._event_file import warn_of_foreign_files
from pte_backends.tensorboard._summaries import SummaryBuilder, SummaryBuilderState
from pte_tracking.sinks import (
    PREVIOUS,
    AnyEvent,
    RejectedEventError,
    Rewound,
    RunStarted,
    RunView,
    Status,
    check_unchanged,
    open_owned,
    replace_file,
    sync_directory,
    write_at,
)

_CHUNK_BYTES = 1 << 20
_DAY_SECONDS = 86_400
_FILE_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.")


class TensorBoardState(msgspec.Struct):
    """Saved state of a connection.

    Attributes:
        file: Name of the event file.
        size: Size of the event file, in bytes.
        last_seq: Sequence number of the last event of the journal with a record in the file.
        is_ended: Whether the file contains the end of the run.
        end_status: Status that was written last. None before the first end of the run.
        summaries: State of the summary builder.
    """

    file: str = ""
    size: int = 0
    last_seq: int = 0
    is_ended: bool = False
    end_status: Status | None = None
    summaries: SummaryBuilderState = msgspec.field(default_factory=SummaryBuilderState)


class TensorBoardConnection:
    """Open event file.

    Args:
        run: Run to deliver.
        state: State that an earlier connection returned from :meth:`state`.
    """

    def __init__(self, run: RunView, state: Mapping[str, Any]) -> None:
        self._run = run
        self._state = msgspec.convert(dict(state), TensorBoardState)
        if self._state.file and not (_FILE_NAME.match(self._state.file) and "/" not in self._state.file):
            raise ValueError(f"The saved state names {self._state.file!r}, which is no event file.")
        self._builder = SummaryBuilder(run, self._state.summaries)
        self._fd = -1
        #: Sequence number of the last event in the last batch.
        self._last_written_seq: int | None = None
        #: Records of samples that a killed process wrote after the state was saved. They are delivered again.
        self._unsaved_samples: set[bytes] = set()
        self._temporary.unlink(missing_ok=True)
        self._open_or_repair()

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Append the records of events.

        A new file is created for a rewind, for events that the file contains already, and for a resume after the end.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If an image is missing or damaged.
            OSError: If another program has changed the file. The next connection builds it again.
        """
        first, state = events[0], self._state
        check_unchanged(self._fd, self._path, state.size)
        if isinstance(first, Rewound):
            with self._atomic():
                self._rewind(first)
        # A row with many values is delivered in several parts that have the same sequence number.
        elif 0 < first.seq <= state.last_seq and first.seq != self._last_written_seq:
            with self._atomic():
                self._rewrite_until(first.seq - 1)
        elif state.is_ended and any(isinstance(event, RunStarted) for event in events):
            with self._atomic():
                self._replace(self._read_kept())
        with self._atomic():
            if self._builder.release_tags(events):
                self._replace(self._read_kept(), dict(self._state.summaries.cleared_tags))
            self._extend(events)
        os.fsync(self._fd)  # delivered events are not delivered again after a loss of power
        self._last_written_seq = events[-1].seq

    def state(self) -> dict[str, Any]:
        """Return the file, its size, and the state of the summary builder.

        Returns:
            The state as plain JSON.
        """
        plain: dict[str, Any] = msgspec.to_builtins(self._state)
        return plain

    def close(self, status: Status | None) -> None:
        """Close the file, and write the status of the run if it ended.

        Args:
            status: Final status of the run; None if the run continues.
        """
        if status is not None:
            check_unchanged(self._fd, self._path, self._state.size)
            warn_of_foreign_files(self._run.directory, self._run.id)
            with self._atomic():
                self._write_end(status)
            os.fsync(self._fd)
        os.close(self._fd)

    # -- event file ----------------------------------------------------------------------------------------------------

    @property
    def _path(self) -> Path:
        return self._run.directory / self._state.file

    @property
    def _temporary(self) -> Path:
        # The name does not contain the word "tfevents", by which readers recognize event files.
        return self._run.directory / f".tensorboard.{self._run.id}.tmp"

    def _open_or_repair(self) -> None:
        """Open the current event file. Repair or rebuild it after a crash or a manual change."""
        state = self._state
        found = self._run.directory.glob(f"events.out.tfevents.*.{self._run.id}")
        files = sorted(path for path in found if not path.is_symlink())  # A file behind a link is not ours.
        current = files.pop() if files else None
        for path in files:
            _clear_file(path, self._run.directory)
        if state.file and (
            current is None
            or current.name < state.file
            or (current.name == state.file and current.stat().st_size < state.size)
        ):
            self._rebuild(state.summaries.seq)
        elif current is None:
            self._replace([], self._find_archived_tags())
        else:
            self._open(current)

    def _find_archived_tags(self) -> dict[str, str]:
        """Return the tags of the run that was archived last, because a running TensorBoard still shows them."""
        files = self._run.directory.glob(f"{PREVIOUS}/*/events.out.tfevents.*")
        archived = max(files, key=lambda path: path.name, default=None)
        if archived is None:
            return {}
        # TensorBoard's own reader expects the file to exist.
        os.close(open_owned(self._run.directory / archived.name, self._run.directory))
        return _values.find_shown_tags(_records.extract_message(raw) for _, raw in _records.read_records(archived))

    def _open(self, path: Path) -> None:
        state = self._state
        if path.name != state.file:
            state.file, state.size, state.last_seq, state.is_ended = path.name, 0, 0, False
            state.summaries.is_stale = True  # The first records of this file are unknown.
        for seq, raw in _records.read_records(path, state.size):
            if not _records.is_intact(raw):
                break
            state.size += len(raw)
            state.last_seq = max(seq, state.last_seq)
            if seq < 0:
                self._unsaved_samples.add(raw)
            state.is_ended |= seq == 0 and _values.SESSION_END in raw
        self._fd = open_owned(path, self._run.directory)
        os.ftruncate(self._fd, state.size)

    def _append(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            written = write_at(self._fd, view, self._state.size)
            self._state.size += written
            view = view[written:]

    def _replace(self, kept: Iterable[tuple[int, bytes]], cleared_tags: Mapping[str, str] | None = None) -> None:
        """Replace the event file with a new one that contains these labeled records."""
        last_seq, old_name, path = 0, self._state.file, self._new_path()
        self._temporary.unlink(missing_ok=True)
        with open(self._temporary, "xb") as file:
            file.write(self._builder.build_header(cleared_tags or {}))
            for seq, raw in kept:
                file.write(raw)
                last_seq = max(seq, last_seq)
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        replace_file(self._temporary, path)
        sync_directory(path.parent)
        fd = open_owned(path, self._run.directory)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        state = self._state
        state.file, state.size, state.last_seq, state.is_ended = path.name, size, last_seq, False
        if old_name:
            _clear_file(self._run.directory / old_name, self._run.directory)

    def _read_kept(
        self, seq: int | None = None, records: Iterable[tuple[int, bytes]] | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Read the records of the history up to an event, without replaced media."""
        replaced_media = {old for old, _ in self._state.summaries.replaced_media}
        for label, raw in records or _records.read_records(self._path):
            if label and (seq is None or label <= seq) and label not in replaced_media:
                yield label, raw

    def _rebuild(self, seq: int, cleared_tags: Mapping[str, str] | None = None) -> None:
        """Replace the event file with one that is built from the history."""
        self._unsaved_samples.clear()
        previous = self._state.summaries
        summaries = SummaryBuilderState(has_layout=previous.has_layout, emptied_image_tags=previous.emptied_image_tags)
        self._restore(msgspec.structs.replace(self._state, summaries=summaries))
        self._replace(self._build_records(self._run.history(seq)), cleared_tags)

    def _build_records(self, events: Iterable[AnyEvent]) -> Iterator[tuple[int, bytes]]:
        for event in events:
            # A missing image was logged when it was first delivered.
            with contextlib.suppress(RejectedEventError):
                data = self._builder.build(event)
                if data:
                    yield event.seq, data

    def _new_path(self) -> Path:
        """Return a path that sorts after all event files, existing or lost, regardless of the clock."""
        names = [*os.listdir(self._run.directory), self._state.file]
        stamps = [int(match[1]) for name in names if (match := _FILE_NAME.match(name))]
        stamp = max([int(time.time()), *(stamp + 1 for stamp in stamps)])
        return self._run.directory / f"events.out.tfevents.{stamp:010d}.{self._run.id}"

    @contextlib.contextmanager
    def _atomic(self) -> Iterator[None]:
        """Restore the state after an error, because the events, or all but a rejected one, are delivered again."""
        before = copy.deepcopy(self._state)
        try:
            yield
        except BaseException:
            if before.file == self._state.file:
                self._restore(before)
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, before.size)
            raise

    def _restore(self, state: TensorBoardState) -> None:
        self._state, self._builder.state = state, state.summaries

    # -- records -------------------------------------------------------------------------------------------------------

    def _extend(self, events: Iterable[AnyEvent]) -> None:
        data = bytearray()
        for event in events:
            record = self._builder.build(event)
            if record and record not in self._unsaved_samples:
                data += record
                self._state.last_seq = max(event.seq, self._state.last_seq)
            if len(data) > _CHUNK_BYTES:
                self._append(data)
                data = bytearray()
        self._append(data)

    def _rewind(self, rewound: Rewound) -> None:
        seq, state = rewound.to_seq, self._state
        if state.last_seq <= seq and not state.is_ended:
            self._builder.rewind(seq, self._last_epoch(seq))
            return
        cleared_tags = self._find_cleared_tags(rewound)
        if any(old <= seq < new for old, new in state.summaries.replaced_media):
            self._rebuild(seq, cleared_tags)
        else:
            self._rewrite_until(seq, cleared_tags)

    def _rewrite_until(self, seq: int, cleared_tags: Mapping[str, str] | None = None) -> None:
        self._builder.rewind(seq, self._last_epoch(seq))
        self._replace(self._read_kept(seq), cleared_tags)

    def _last_epoch(self, seq: int) -> int:
        """Return the last step with an epoch up to an event; -1 if there is none."""
        last_record, encoded_tag = b"", _values.encode_tag(_values.EPOCH)
        for _, raw in self._read_kept(seq):
            if encoded_tag in raw:
                last_record = raw
        return event_pb2.Event.FromString(_records.extract_message(last_record)).step if last_record else -1

    def _find_cleared_tags(self, rewound: Rewound) -> dict[str, str]:
        """Return the tags that lose all their points at a rewind, and the plugin of each."""
        superseded_tags = {
            tag: plugin for event in self._run.superseded(rewound) for tag, plugin in _values.get_tags(event).items()
        }
        encoded_tags = {tag: _values.encode_tag(tag) for tag in superseded_tags}
        for _, raw in self._read_kept(rewound.to_seq):
            for tag in [tag for tag, encoded_tag in encoded_tags.items() if encoded_tag in raw]:
                del encoded_tags[tag]
            if not encoded_tags:
                break
        return {tag: superseded_tags[tag] for tag in encoded_tags}

    def _write_end(self, status: Status) -> None:
        state = self._state
        is_current = not (state.summaries.is_unordered or state.summaries.is_stale)
        if state.is_ended and state.end_status == status and is_current:
            return
        state.end_status = status
        in_order = _order.read_sorted(self._path) if state.summaries.is_unordered else None
        if in_order or state.is_ended or state.summaries.is_stale:
            self._replace(self._read_kept(records=in_order))
        state.summaries.is_unordered = False
        if state.summaries.params:
            self._append(self._builder.build_end(status == "FINISHED"))
            state.is_ended = True


def _clear_file(path: Path, directory: Path) -> None:
    """Empty a file that was replaced. Delete it when no reader can have it open."""
    with contextlib.suppress(OSError):
        status = path.lstat()
        if status.st_size:
            descriptor = open_owned(path, directory)
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
        elif time.time() - status.st_mtime > _DAY_SECONDS:
            path.unlink()
