"""Connection that copies the snapshots and the journal of a run to a mirror."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pte_backends.mirror._journal import JournalCopy
from pte_backends.mirror._media import upload_media
from pte_backends.mirror._pointer import Pointer, update_pointer
from pte_backends.mirror._samples import SampleCopies
from pte_backends.mirror._snapshots import SnapshotCopies
from pte_backends.mirror._store import Store
from pte_tracking.sinks import (
    AnyEvent,
    Artifact,
    Checkpoint,
    CheckpointRemoved,
    MediaFile,
    Model,
    Rewound,
    RunStarted,
    RunView,
    SinkClosedError,
    Status,
)

_MANIFEST = "run.json"
#: Another name, so that a mirror in a directory of runs is not taken for runs without a journal.
_MANIFEST_COPY = "manifest.json"


class MirrorConnection:
    """Open connection to a mirror.

    Args:
        store: Mirror.
        run: Run to deliver.
        is_started: Whether an earlier connection has copied something.

    Raises:
        SinkClosedError: If the run continued in another directory, or the mirror has lost the run.
        OSError: If the mirror cannot be reached.
    """

    def __init__(self, store: Store, run: RunView, *, is_started: bool) -> None:
        self._store = store
        self._run = run
        self._journal = JournalCopy(store, run.id, run.directory)
        if is_started and not self._journal.end:
            raise SinkClosedError(f"{store.url} does not contain the run any more.", is_lost=True)
        self._samples = SampleCopies(store, run.id, run.directory)
        self._snapshots = SnapshotCopies(store, run)
        self._has_failed = False

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Copy new files, and the journal after a snapshot, a rewind, or a start; delete snapshots that are gone.

        The files of a snapshot come first, then the journal, then the index of the snapshot, which completes it. An
        event whose copy waits is in the local journal, and every later connection compares both.

        Args:
            events: Batch of events.

        Raises:
            OSError: If the mirror cannot be reached.
        """
        self._has_failed = True  # until the call ends
        self._write(events)
        self._has_failed = False

    def poll(self, status: Status) -> bool:
        """Copy the rows of the journal and the samples that were added since the last copy.

        Args:
            status: Status of the run.

        Returns:
            False: nothing follows immediately.

        Raises:
            OSError: If the mirror cannot be reached.
        """
        self._has_failed = True
        self._copy_journal()
        self._has_failed = False
        return False

    def state(self) -> dict[str, Any]:
        """Return that the mirror contains the run. The next connection compares both journals.

        Returns:
            The state as plain JSON.
        """
        return {"is_started": True}

    def close(self, status: Status | None) -> None:
        """Copy the rest of the journal.

        Args:
            status: Final status of the run, which is part of the journal; None if the run continues.

        Raises:
            OSError: If the mirror cannot be reached.
        """
        if status is not None or not self._has_failed:  # A store that failed a moment ago would only delay.
            self._copy_journal()

    def _write(self, events: Sequence[AnyEvent]) -> None:
        for event in events:
            if isinstance(event, RunStarted):
                manifest = (self._run.directory / _MANIFEST).read_bytes()
                self._store.write(f"{self._run.id}/{_MANIFEST_COPY}", manifest)
                self._journal.claim()
            elif isinstance(event, Artifact | MediaFile | Model):
                upload_media(self._store, self._run, event)
        checkpoints = [event for event in events if isinstance(event, Checkpoint)]
        indexes = {event.seq: self._snapshots.upload(event) for event in checkpoints}
        if any(isinstance(event, Checkpoint | CheckpointRemoved | Rewound | RunStarted) for event in events):
            self._copy_journal()
        for event in events:
            if isinstance(event, RunStarted):
                update_pointer(self._store, Pointer(self._run.id, event.time))
            elif isinstance(event, Checkpoint) and (index := indexes[event.seq]) is not None:
                self._snapshots.publish(index)
            elif isinstance(event, CheckpointRemoved):
                self._snapshots.remove(event.path, event.step)
            elif isinstance(event, Rewound):
                self._snapshots.remove_after(event.step)

    def _copy_journal(self) -> None:
        self._journal.update()
        self._samples.update()
