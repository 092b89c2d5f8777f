"""Writer for the transaction log of a W&B run.

The file is appended to, truncated after a crash, and rebuilt after a rewind. This is possible as long as the run is not
synced, because no other program writes the file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from wandb.proto import wandb_internal_pb2 as pb

from pte_backends._record_log import frame, write_data
from pte_backends.wandb import _framing, _models, _provenance, _records
from pte_tracking.sinks import (
    AnyEvent,
    Checkpoint,
    CheckpointRemoved,
    Metrics,
    Model,
    Provenance,
    RejectedEventError,
    Rewound,
    RunView,
    Status,
    make_owned_directory,
    open_owned,
)


class WandbState(msgspec.Struct):
    """Saved state of a connection.

    Attributes:
        size: Number of valid bytes in the file. Later bytes are truncated.
        record_count: Number of records in the valid part.
        row_count: Number of history rows in the valid part.
        seq: Sequence number of the last event.
        last_time: Time of the last event, in seconds since the epoch.
        summary: Last value of each metric.
        is_stale: Whether the file contains a checkpoint that was removed later.
        header: Project, entity, and display name in the file, and the run directory, to which its paths refer.
        status: Status after the valid part of the file. None if the run continues.
    """

    size: int = 0
    record_count: int = 0
    row_count: int = 0
    seq: int = 0
    last_time: float = 0.0
    summary: dict[str, float] = {}
    is_stale: bool = False
    header: tuple[str | None, ...] | None = None
    status: Status | None = None


class WandbConnection:
    """Open transaction log.

    Args:
        project: Project name.
        entity: Team or user that owns the project.
        run_name: Display name of the run. None for the name of the run.
        run: Run to deliver.
        state: State that an earlier connection returned from :meth:`state`.
    """

    def __init__(
        self, project: str, entity: str | None, run_name: str | None, run: RunView, state: Mapping[str, Any]
    ) -> None:
        self._project, self._entity = project, entity
        self._run_name = run_name or run.name
        self._run = run
        self._header = (project, entity, self._run_name, run.directory.as_uri())
        self._state = msgspec.convert(dict(state), WandbState)
        stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(run.start_time))
        directory = run.directory / "wandb" / f"offline-run-{stamp}-{run.id}"
        self._files = directory / "files"
        make_owned_directory(self._files, run.directory)
        self._path = directory / f"run-{run.id}.wandb"
        self._fd = open_owned(self._path, run.directory)
        is_shorter = os.fstat(self._fd).st_size < self._state.size  # The file was lost or truncated.
        if is_shorter or (self._state.size and self._state.header != self._header):
            status = self._state.status
            self._rebuild(self._state.seq)
            if status:
                self._write_status(status)
        elif not self._state.size:
            self._create_file()

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Append the records of events, or rebuild the file at a rewind.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If a file of the run is missing.
        """
        if isinstance(events[0], Rewound):
            self._rebuild(events[0].to_seq)
        else:
            # Removes the status of a run that was resumed, and the events of a batch whose position was not saved.
            os.ftruncate(self._fd, self._state.size)
            self._extend(events)
        self._state.seq, self._state.status = max(events[-1].seq, self._state.seq), None

    def state(self) -> dict[str, Any]:
        """Return the valid size of the file and the progress in it.

        Returns:
            The state as plain JSON.
        """
        plain: dict[str, Any] = msgspec.to_builtins(self._state)
        return plain

    def close(self, status: Status | None) -> None:
        """Close the file, and write the status of the run if it ended.

        The status is written after the valid part of the file, so a resumed run truncates it.

        Args:
            status: Final status of the run; None if the run continues.
        """
        if status:
            if self._state.is_stale:
                self._rebuild(self._state.seq)
            self._write_status(status)
        os.close(self._fd)

    def _write_status(self, status: Status) -> None:
        seconds = max(self._state.last_time - self._run.start_time, 0.0)
        footer = [*_records.build_footer(self._state.summary, status, seconds)]
        data, _ = self._frame_records(footer)
        os.ftruncate(self._fd, self._state.size)
        self._write_data(data)
        os.fsync(self._fd)
        self._state.status = status

    def _create_file(self) -> None:
        os.ftruncate(self._fd, 0)
        self._state = WandbState(header=self._header)
        self._write_data(_framing.FILE_HEADER)
        self._state.size = len(_framing.FILE_HEADER)
        self._append(_records.build_header(self._run, self._project, self._entity, self._run_name))

    def _rebuild(self, upto_seq: int) -> None:
        self._create_file()
        removed = {
            event.path: event.seq for event in self._run.history(upto_seq) if isinstance(event, CheckpointRemoved)
        }
        for event in self._run.history(upto_seq):
            if isinstance(event, Checkpoint) and removed.get(event.path, 0) > event.seq:
                continue
            try:
                self._extend([event])
            except RejectedEventError:
                continue  # The event was also rejected, and logged, when it was first delivered.
        self._state.is_stale = False
        self._state.seq = upto_seq

    def _extend(self, events: Iterable[AnyEvent]) -> None:
        before = msgspec.structs.replace(self._state, summary=dict(self._state.summary))
        try:
            self._append(self._build_records(events))
        except BaseException:
            self._state = before  # A batch is written completely or not at all.
            raise

    def _build_records(self, events: Iterable[AnyEvent]) -> Iterator[pb.Record]:
        for event in events:
            if isinstance(event, Checkpoint | Model):
                record = _models.build_version(event, self._run, self._project, self._entity)
                yield from [] if record is None else [record]
                continue
            if isinstance(event, Provenance):
                yield _provenance.build_run(self._run, self._project, self._entity, self._run_name, event.values)
                yield from _provenance.build_records(event, self._run, self._files)
            self._state.is_stale |= isinstance(event, CheckpointRemoved)
            if isinstance(event, Metrics):
                self._state.summary.update(_records.select_finite(event.values))
            records = _records.build_records(event, self._state.row_count, self._run, self._files)
            self._state.row_count += sum(record.HasField("history") for record in records)
            self._state.last_time = max(self._state.last_time, event.time)
            yield from records

    def _append(self, records: Iterable[pb.Record]) -> None:
        data, record_count = self._frame_records(records)
        self._write_data(data)
        self._state.size += len(data)
        self._state.record_count = record_count

    def _write_data(self, data: bytes) -> None:
        write_data(self._fd, self._path, data, self._state.size)

    def _frame_records(self, records: Iterable[pb.Record]) -> tuple[bytes, int]:
        data, record_count = bytearray(), self._state.record_count
        for record in records:
            record_count += 1
            record.num = record_count
            data += frame(record.SerializeToString(), self._state.size + len(data))
        return bytes(data), record_count
