"""Writer of the file of a SwanLab run.

``swanlab.init`` cannot continue a file, keeps one run per process, stamps all values with the current time, and leaves
the last of them in memory until the run finishes. The connection therefore writes the file itself, from the messages of
the client library. The file is appended to, truncated after a crash, and rebuilt after a rewind. This is possible as
long as the run is not synced, because no other program writes the file.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from swanlab.proto.swanlab.record.v1.record_pb2 import Record

from pte_backends._record_log import frame, write_data
from pte_backends.swanlab import _records
from pte_tracking.sinks import (
    AnyEvent,
    Provenance,
    RejectedEventError,
    Rewound,
    RunEnded,
    RunStarted,
    RunView,
    Status,
    make_owned_directory,
    open_owned,
)

#: Identification, magic number, and version of the format. ``swanlab sync`` refuses other versions.
_FILE_HEADER = struct.pack("<4sHB", b":SWL", 0xE1D6, 2)


class SwanLabState(msgspec.Struct):
    """Saved state of a connection.

    Attributes:
        path: Directory of the SwanLab run, relative to the run directory.
        run_id: ID of the SwanLab run.
        size: Number of valid bytes in the file. Later bytes are truncated.
        record_count: Number of numbered records in the valid part.
        seq: Sequence number of the last event.
        last_time: Time of the last event, in seconds since the epoch.
        error: Error message with which the run ended.
        header: Project, workspace, and display name in the file, and the run directory, to which its paths refer.
        status: Status after the valid part of the file. None if the run continues.
    """

    path: str = ""
    run_id: str = ""
    size: int = 0
    record_count: int = 0
    seq: int = 0
    last_time: float = 0.0
    error: str | None = None
    header: tuple[str | None, ...] | None = None
    status: Status | None = None


class SwanLabConnection:
    """Open file of a SwanLab run.

    Args:
        project: Name of the project.
        workspace: User or organization that owns the project.
        run_name: Display name of the run. None for the name of the run.
        run: Run to deliver.
        state: State that an earlier connection returned from :meth:`state`.
    """

    def __init__(
        self, project: str, workspace: str | None, run_name: str | None, run: RunView, state: Mapping[str, Any]
    ) -> None:
        self._run = run
        self._header = (project, workspace, run_name or run.name, run.directory.as_uri())
        self._state = msgspec.convert(dict(state), SwanLabState)
        #: Configuration in the valid part of the file. None until it is needed.
        self._config: dict[str, Any] | None = None
        stamp = time.strftime("%Y%m%d_%H%M%S", time.localtime(run.start_time))
        self._directory = f"swanlab/run-{stamp}-{run.id}"
        make_owned_directory(run.directory / self._directory, run.directory)
        self._path = run.directory / self._directory / f"run-{run.id}.swanlab"
        self._fd = open_owned(self._path, run.directory)
        is_shorter = os.fstat(self._fd).st_size < self._state.size  # The file was lost or truncated.
        if self._state.size and (is_shorter or self._state.header != self._header):
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
            RejectedEventError: If a file of the run is missing, or SwanLab does not accept the step.
        """
        if isinstance(events[0], Rewound):
            self._rebuild(events[0].to_seq)
        else:
            # Removes the status of a run that was resumed, and the events of a batch whose position was not saved.
            os.ftruncate(self._fd, self._state.size)
            self._extend(events)
        self._state.seq, self._state.status = max(events[-1].seq, self._state.seq), None

    def state(self) -> dict[str, Any]:
        """Flush the file to disk, and return its valid size and the progress in it.

        Returns:
            The state as plain JSON.
        """
        if self._fd >= 0:
            os.fsync(self._fd)
        plain: dict[str, Any] = msgspec.to_builtins(self._state)
        return plain

    def close(self, status: Status | None) -> None:
        """Close the file, and write the status of the run if it ended.

        The status is written after the valid part of the file, so a resumed run truncates it.

        Args:
            status: Final status of the run; None if the run continues.
        """
        try:
            if status:
                self._write_status(status)
        finally:
            os.close(self._fd)
            self._fd = -1

    def _create_file(self) -> None:
        os.ftruncate(self._fd, 0)
        project, workspace, name, _ = self._header
        self._state = SwanLabState(self._directory, self._run.id, header=self._header)
        self._config = {}
        start = _records.build_start(self._run, project, workspace, name).SerializeToString()
        self._append(_FILE_HEADER + frame(start, len(_FILE_HEADER)))

    def _rebuild(self, upto_seq: int) -> None:
        self._create_file()
        for event in self._run.history(upto_seq):
            try:
                self._extend([event])
            except RejectedEventError:
                continue  # The event was also rejected, and logged, when it was first delivered.
        self._state.seq = upto_seq

    def _write_status(self, status: Status) -> None:
        record = _records.build_finish(status, self._state.error, self._state.last_time or self._run.start_time)
        os.ftruncate(self._fd, self._state.size)
        self._write_data(frame(record.SerializeToString(), self._state.size))
        os.fsync(self._fd)
        self._state.status = status

    def _extend(self, events: Iterable[AnyEvent]) -> None:
        before = msgspec.structs.replace(self._state)
        try:
            data = bytearray()
            for record in self._build_records(events):
                data += frame(record.SerializeToString(), self._state.size + len(data))
            self._append(bytes(data))
        except BaseException:
            self._state, self._config = before, None  # A batch is written completely or not at all.
            raise

    def _build_records(self, events: Iterable[AnyEvent]) -> Iterator[Record]:
        for event in events:
            self._state.last_time = max(self._state.last_time, event.time)
            if isinstance(event, RunStarted | RunEnded):
                self._state.error = event.error if isinstance(event, RunEnded) else None
            elif changes := _records.read_config(event):
                self._config = {**self._read_config(), **changes}
                yield _records.build_config(self._config, event.time)
            if isinstance(event, Provenance):
                yield from _records.build_provenance(event, self._run)
            for record in _records.build_records(event, self._run):
                self._state.record_count += 1
                record.num = self._state.record_count
                yield record

    def _read_config(self) -> dict[str, Any]:
        if self._config is None:
            self._config = {}
            for event in self._run.history(self._state.seq):
                self._config.update(_records.read_config(event))
        return self._config

    def _append(self, data: bytes) -> None:
        self._write_data(data)
        self._state.size += len(data)

    def _write_data(self, data: bytes) -> None:
        write_data(self._fd, self._path, data, self._state.size)
