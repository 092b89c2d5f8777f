"""Import of a run that another program wrote."""

from __future__ import annotations

import contextlib
import glob
import itertools
import logging
import math
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from pte_tracking._delivery.inline import InlineConsumer
from pte_tracking._delivery.sink_entries import add_sinks, check_sinks
from pte_tracking._platform.files import CAN_MOVE_OPEN_FILES, replace_file, sync_directory
from pte_tracking._platform.processes import host_name
from pte_tracking._runs.archiving import RUN_FILES
from pte_tracking._runs.directory_lock import lock_directory
from pte_tracking._runs.imported_rows import LOG, join_rows
from pte_tracking._store import event_encoding, events
from pte_tracking._store.events import (
    AnyEvent,
    Artifact,
    Event,
    Histogram,
    MediaFile,
    Metrics,
    Model,
    Params,
    RunEnded,
    RunStarted,
)
from pte_tracking._store.files import make_durable_directory, sync_tree
from pte_tracking._store.layout import ARTIFACTS, DELIVERY, JOURNAL, WRITER_LOCK
from pte_tracking._store.manifest import MAX_TIME, Manifest
from pte_tracking._store.owned_files import owned_path
from pte_tracking._store.params import flatten_params
from pte_tracking._store.place import Place
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.values import check_step, to_text, to_texts

_logger = logging.getLogger("pte_tracking")

_E = TypeVar("_E", bound=AnyEvent)

_BUFFER_BYTES = 1 << 20
#: Origin of the command. The source file and the commit would be those of another program.
_CONTEXT = ("user", "host", "command")
#: Events that describe a process or snapshots.
_NOT_IMPORTED = (RunStarted, events.Checkpoint, events.CheckpointRemoved, events.FirstBatch, events.Rewound)


class ImportedRun(msgspec.Struct):
    """Summary of an import.

    Attributes:
        directory: Run directory.
        id: ID of the run.
        name: Display name of the run.
        status: Status of the run.
        points: Number of data points.
        metrics: Number of metrics.
        params: Number of parameters.
        events: Number of further events by kind, such as ``"image"``.
    """

    directory: str
    id: str
    name: str
    status: events.Status = "FINISHED"
    points: int = 0
    metrics: int = 0
    params: int = 0
    events: dict[str, int] = {}


class RunImport:
    """Directory in which an imported run is written before it is renamed to its run directory.

    A crash leaves this hidden directory without a manifest, so it is not a run. The next import removes it.

    Args:
        directory: Absolute path of the run directory, which must not exist or be empty.

    Raises:
        FileExistsError: If the directory contains anything.
        DirectoryInUseError: If another process imports a run to the directory.
        OSError: If the directory cannot be created.

    Attributes:
        files: Directory for the files of events.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._is_published = False
        self._check_is_free()
        self._staging = directory.with_name(f".{directory.name}.import")
        make_durable_directory(directory.parent)
        if self._staging.is_symlink():
            raise FileExistsError(f"{self._staging} is a symbolic link. Remove it.")
        self._lock = lock_directory(self._staging)
        for entry in self._staging.iterdir():  # of an import that was killed
            if entry.name != WRITER_LOCK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        self.files = self._staging / ARTIFACTS
        self.files.mkdir()
        (self._staging / DELIVERY).mkdir()

    def __enter__(self) -> RunImport:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._is_published:
            shutil.rmtree(self._staging, ignore_errors=True)
        self._lock.release()

    def write(self, source_events: Iterable[AnyEvent], source: str, name: str | None) -> ImportedRun:
        """Write the run, and rename it to its run directory.

        Args:
            source_events: Events of :meth:`pte_tracking.sinks.Sink.read_run`.
            source: Path or URI of the source, for the tag ``imported_from``.
            name: Display name of the run. None for the name in the source or the name of the directory.

        Returns:
            Summary of the import.

        Raises:
            FileExistsError: If the run directory was filled meanwhile.
            LookupError: If the source contains no event.
            OSError: If the source cannot be read or the run cannot be written.
            TypeError: If an event has a value of the wrong type.
            ValueError: If the source has another format, or an event has an invalid value.
        """
        stream = iter(source_events)
        first = next(stream, None)
        if first is None:
            raise LookupError(f"{source}: contains no metrics, parameters, or other events of a run")
        manifest = self._plan_manifest(first, name)
        imported = ImportedRun(str(self._directory), manifest.id, manifest.name)
        complete = self._complete(itertools.chain([first], stream), manifest, source, imported)
        journal, position = self._staging / JOURNAL, 0
        journal.touch()
        log = InlineConsumer(self._staging, manifest, manifest.sinks[0], Place(self._staging))
        with open(journal, "wb", buffering=_BUFFER_BYTES) as file:
            for seq, event in enumerate(complete, 1):
                numbered = _with_seq(event, seq)
                end = position + file.write(event_encoding.encode(numbered))
                log.deliver_event(numbered, position, end)
                position = end
        log.finish(imported.status)
        if not any(self.files.iterdir()):
            self.files.rmdir()
        self._publish(manifest)
        return imported

    def _check_is_free(self) -> None:
        directory = self._directory
        if not os.path.lexists(directory):
            return
        if not directory.is_dir() or directory.is_symlink():
            raise FileExistsError(f"{directory} exists and is not a directory. Choose another run directory.")
        names = {entry.name for entry in directory.iterdir()}
        if names & RUN_FILES:
            raise FileExistsError(f"{directory} contains a run. Choose another run directory, or move the run first.")
        if names:
            raise FileExistsError(f"{directory} is not empty. Choose a run directory that does not exist.")

    def _plan_manifest(self, first: AnyEvent, name: str | None) -> Manifest:
        if name is None and isinstance(first, RunStarted) and first.name:
            name = to_text(first.name)
        run_id = uuid.uuid4().hex
        planned = Manifest.new(self._directory, name)
        manifest = Manifest(
            run_id,
            name or f"{to_text(self._directory.name)}-{run_id[:6]}",
            first.time if 0 <= first.time < MAX_TIME else planned.start_time,
            files=[glob.escape(LOG)],
            context={key: value for key, value in planned.context.items() if key in _CONTEXT},
        )
        return add_sinks(manifest, check_sinks(["json"]))

    def _complete(
        self, stream: Iterable[AnyEvent], manifest: Manifest, source: str, imported: ImportedRun
    ) -> Iterator[Event]:
        """Iterate over all events of the journal, without sequence numbers, and count them."""
        start = manifest.start_time
        yield RunStarted(0, start, manifest.id, manifest.name, os.getpid(), host_name())
        yield events.Tags(0, start, {"imported_from": mask_secrets(to_text(source))})
        keys: set[str] = set()
        params: set[str] = set()
        end = None
        latest = start
        for event in join_rows(self._check(stream, start)):
            latest = max(latest, event.time)
            if isinstance(event, Metrics):
                keys.update(event.values)
                imported.points += len(event.points)
            elif isinstance(event, RunEnded):
                end = event
                continue
            elif isinstance(event, Params):
                params.update(event.values)
            else:
                kind = type(event).__name__.lower()
                imported.events[kind] = imported.events.get(kind, 0) + 1
            yield event
        imported.metrics, imported.params = len(keys), len(params)
        imported.status = end.status if end and end.status != "RUNNING" else "FINISHED"
        error = mask_secrets(to_text(end.error)) if end and end.error else None
        yield RunEnded(0, end.time if end else latest, imported.status, error)

    def _check(self, stream: Iterable[AnyEvent], start: float) -> Iterator[AnyEvent]:
        """Convert the values of events, and leave out those that an imported run does not have."""
        latest = start
        replace = msgspec.structs.replace
        for event in stream:
            if not 0 <= event.time < MAX_TIME:  # damaged, or not a number
                event = replace(event, time=latest)
            latest = event.time
            if isinstance(event, Metrics):
                yield event
            elif isinstance(event, Params):
                yield replace(event, values=flatten_params(event.values))
            elif isinstance(event, events.Tags):
                yield replace(event, values=to_texts(event.values))
            elif isinstance(event, MediaFile | Artifact | Model):
                if (file := owned_path(self.files, event.path)) is None:
                    raise ValueError(
                        f"{event.path!r} of an event does not exist in the directory that the sink received"
                    )
                check_step(getattr(event, "step", 0))
                yield replace(event, path=file.relative_to(self._staging).as_posix())
            elif isinstance(event, _NOT_IMPORTED):
                continue
            else:
                yield _check_media(event)

    def _publish(self, manifest: Manifest) -> None:
        sync_tree(self._staging)
        manifest.save(self._staging)  # last, because it makes the directory a run
        if not CAN_MOVE_OPEN_FILES:
            self._lock.release()
            with contextlib.suppress(FileNotFoundError):
                self._directory.rmdir()
        replace_file(self._staging, self._directory)
        self._is_published = True
        sync_directory(self._directory.parent)


def _check_media(event: _E) -> _E:
    check_step(getattr(event, "step", 0))
    if isinstance(event, Histogram):
        numbers = (*event.edges, *event.counts, event.min, event.max, event.sum, event.sum_squares)
        if not all(map(math.isfinite, numbers)):  # JSON has no such numbers
            raise ValueError(f"histogram {event.key!r}: expected finite numbers, got {numbers}")
    return event


def _with_seq(event: Event, seq: int) -> AnyEvent:
    if type(event) is Metrics:
        return Metrics(
            seq,
            event.time,
            event.step,
            event.values,
            event.epoch,
            event.elapsed_time,
            event.log,
            None,
            event.measured,
            True,
        )
    return msgspec.structs.replace(event, seq=seq)  # type: ignore[return-value]
