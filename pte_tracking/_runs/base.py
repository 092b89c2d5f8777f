"""Life cycle of a run."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pte_tracking._delivery.sink_entries import check_sinks
from pte_tracking._distributed import environment
from pte_tracking._runs.directory import Claim, check_directory, claim_directory, current_manifest, read_start_position
from pte_tracking._runs.held_writer import HeldWriter
from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.outcome import last_error, outcome_of
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store import events, metrics
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import Checkpoint, Status
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.params import flatten_params
from pte_tracking._store.values import check_key, to_text, to_texts
from pte_tracking.sinks import Sink

#: All runs of this process.
_runs: weakref.WeakSet[RunBase] = weakref.WeakSet()
#: Writers of the parent, in a forked child. Deleting them would close their files and write buffered data twice.
_parent_writers: list[RunWriter] = []

_logger = logging.getLogger("pte_tracking")

_R = TypeVar("_R", bound="RunBase")


class RunBase:
    """Base class of :class:`~pte_tracking.Run` that opens, reads, and ends a run."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        sinks: Iterable[str | Sink] = ("json",),
        params: object = None,
        tags: Mapping[str, Any] | None = None,
        name: str | None = None,
        resume: bool = False,
        close_timeout: float = 30.0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        check_directory("directory", directory)
        # The run stays in this directory if a symbolic link to it changes while the training runs.
        self.directory = Path(os.path.realpath(directory))
        self._sinks = check_sinks(sinks)
        self._params = flatten_params({} if params is None else params)
        self._tags = to_texts(tags or {})
        self._name = name if name is None else check_key(name, "name")
        self._resume = resume
        self._close_timeout = close_timeout
        self.before_close: list[Callable[[], object]] = []
        #: Returns whether the training of the run is complete, so that another run may use the directory.
        self.is_complete: Callable[[], bool] | None = None
        #: Called before the checkpoints are listed, so that a snapshot that is due is among them.
        self.before_checkpoints: Callable[[], object] | None = None
        #: Returns text for the error message of a run that does not finish, such as "ended at iteration 7 of 30".
        self.describe_progress: Callable[[], str] | None = None
        #: Called once, by the first :meth:`rewind`.
        self.after_rewind: list[Callable[[], object]] = []
        #: None on rank 0 before the run is opened, and on every rank after the run has ended.
        self._writer: RunWriter | NullWriter | HeldWriter | None = None
        #: Claimed directory, until something is logged.
        self._claim: Claim | None = None
        #: Manifest of the next new run.
        self._planned: Manifest | None = None
        #: ID that was read before the run was opened.
        self._read_id: str | None = None
        if (environment.rank() if rank is None else rank) != 0:
            self._writer = NullWriter()
        #: Manifest of an ended run.
        self._manifest: Manifest | None = None
        self._logs: set[str] = set()
        self._lock = threading.RLock()
        self._is_closed = False
        self._world_size = environment.size() if world_size is None else world_size
        self._error_before: BaseException | None = None
        _runs.add(self)

    @property
    def is_open(self) -> bool:
        """Whether the run was opened and has not ended."""
        has_manifest = self._writer is not None and self._writer.manifest is not None
        return not self._is_closed and (has_manifest or self._claim is not None)

    @property
    def sinks(self) -> Sequence[Sink]:
        """Sinks passed to the constructor."""
        return self._sinks

    @property
    def params(self) -> dict[str, events.Scalar]:
        """Parameters passed to the constructor, with flat names."""
        return self._params

    @property
    def id(self) -> str:
        """ID of the run: 32 hexadecimal digits that stay the same after a resume.

        Before the run is opened, the ID is that of the run in the directory if the run is going to continue it, or may
        continue it. Otherwise, it is the ID that the new run receives. Reading it does not open the run.

        Raises:
            RuntimeError: If training has not started on a rank other than 0.
        """
        return self.manifest().id

    @property
    def name(self) -> str:
        """Display name of the run. Reading the name does not open the run."""
        return self.manifest().name

    @property
    def start_time(self) -> float:
        """Time of the first start in seconds since the Unix epoch. Reading the time does not open the run."""
        return self.manifest().start_time

    def hold(self) -> None:
        """Keep what is logged in memory until :meth:`open`, because a resume decides which run it belongs to.

        A manager calls this method. :meth:`close` opens the run if something was logged.
        """
        if self._writer is None:
            self._writer = HeldWriter(self._lock)

    def open(self, at: RunPosition | None = None, *, resume: bool | None = None, journal: Path | None = None) -> None:
        """Lock the directory and start or continue the run. Do nothing on a rank other than 0.

        A run that is continued stays unchanged until something is logged. It is rewound by :meth:`rewind`.

        Args:
            at: Position to which :meth:`rewind` returns the run. Another run in the directory is archived. If the
                directory does not contain the run of the position, the run is created there. None does not rewind.
            resume: Whether to continue the run in the directory if ``at`` is None. Defaults to the argument ``resume``
                of the constructor. A run that ended continues.
            journal: Journal to copy if the directory has none, such as the journal next to a snapshot from another
                machine.

        Raises:
            DirectoryInUseError: If another live process writes to the directory.
            RunNotFoundError: If the run in the directory is unreadable.
            RuntimeError: If the run is already open, or if it ended and the directory contains another run.
        """
        if isinstance(self._writer, NullWriter):
            return
        if self.is_open:
            raise RuntimeError(f"The run in {str(self.directory)!r} is already open.")
        self.close_completed_run()
        with self._lock:
            ended = self._manifest
            held = self._writer if isinstance(self._writer, HeldWriter) else None
            claim = claim_directory(
                self.directory,
                at,
                resume or ended is not None or (self._resume if resume is None else resume),
                plan=self._plan,
                sinks=self._sinks,
                files=held.files if held else (),
                world_size=self._world_size,
                journal=journal,
            )
            if ended is not None and claim.manifest.id != ended.id and at is None:
                claim.lock.release()
                raise RuntimeError(
                    f"The run {ended.name!r} has ended, and {str(self.directory)!r} now contains another run. "
                    "Create another Run to log to that run."
                )
            if self._read_id not in (None, claim.manifest.id):
                _logger.warning(
                    "%s: the run ID %s was read before, but the run is %s. To continue the earlier run, call resume() "
                    "before the first iteration.",
                    self.directory,
                    self._read_id,
                    claim.manifest.id,
                )
            claim.is_reopened = self._is_closed and ended is not None
            self._writer, self._claim, self._is_closed = None, claim, False
            self._error_before = last_error()
            if claim.is_new and at is None:
                try:
                    self._start(claim)
                except BaseException:
                    claim.lock.release()
                    self._writer, self._claim = held, None
                    raise
            if held:
                held.release(self._opened)

    def rewind(self) -> None:
        """Return the run to the position passed to :meth:`open`, before the first new iteration.

        Events after the position are superseded, except for those logged since :meth:`open`, which are repeated. Only
        the first call has an effect. Do nothing on a rank other than 0.
        """
        with self._lock:
            if isinstance(self._writer, HeldWriter):
                self.open()
            self._opened(is_rewound=True).rewind()
            callbacks, self.after_rewind = self.after_rewind, []
            for callback in callbacks:
                callback()

    def close_completed_run(self) -> None:
        """Close another run of this process in the directory whose training is complete, but which is still open."""
        for run in list(_runs):
            if run is not self and run.directory == self.directory and run.is_complete and run.is_complete():
                run.close()

    def manifest(self) -> Manifest:
        """Return the manifest of the run, the content of ``run.json``. This method does not open the run.

        Raises:
            RunNotFoundError: If the run in the directory is unreadable.
            RuntimeError: If training has not started on a rank other than 0.
        """
        if self._claim is not None:
            return self._claim.manifest
        if isinstance(self._writer, RunWriter | NullWriter):
            manifest = self._writer.manifest
        else:
            manifest = self._manifest or self._expected_manifest()
        if manifest is None:
            raise RuntimeError(
                f"The ID and the name of the run in {str(self.directory)!r} are available on ranks other than 0 after "
                "training has started."
            )
        return manifest

    def attach(self, manifest: Manifest) -> None:
        """Set the manifest on a rank other than 0, so that its ID and name are available. Do nothing on rank 0.

        Args:
            manifest: Manifest of the run that rank 0 has opened.
        """
        if isinstance(self._writer, NullWriter):
            self._writer.attach(manifest)

    def start_position(self) -> RunPosition | None:
        """Return the position before the first logged value of the run in the directory.

        Returns:
            The position, or None if the directory contains no run. Pass it to :meth:`open` to restart the run.

        Raises:
            RunNotFoundError: If the run in the directory is unreadable.
        """
        return read_start_position(self.directory)

    def position(self, step: int) -> RunPosition:
        """Return the current position of the run, which a snapshot stores.

        Call :meth:`sync` before the snapshot is published, so that the position is durable.

        Args:
            step: Number of completed iterations.

        Raises:
            RuntimeError: If the run is held, or on a rank other than 0.
        """
        claim = self._claim
        if claim is not None and claim.at:
            directory = claim.at["directory"] if claim.is_new else to_text(str(self.directory))
            return {**claim.at, "step": step, "directory": directory}
        return self._opened().position(step)

    def sync(self) -> None:
        """Flush all logged values to disk. This method may be called while other threads log.

        Raises:
            OSError: If the disk is full or fails.
            RuntimeError: If the run has ended.
        """
        self._opened().sync()

    def checkpoints(self) -> list[Checkpoint]:
        """Return the checkpoints that were not pruned or superseded. The run does not need to be open.

        Returns:
            Checkpoints in ascending order of their steps. Empty on a rank other than 0 after training has started.
        """
        if self.before_checkpoints is not None:
            self.before_checkpoints()
        if isinstance(self._writer, RunWriter | NullWriter) and self.is_open:
            return self._writer.checkpoints()
        return list_checkpoints(self.directory)

    @property
    def latest_values(self) -> dict[str, events.Number]:
        """Metrics that were logged last, by key, independent of their steps. Empty before the first one."""
        return {} if self._writer is None else self._writer.latest_values()

    def rows(self, log: str = "log") -> list[events.Metrics]:
        """Return the effective rows of one log.

        Args:
            log: File name of the JSON log.

        Returns:
            Rows in the order in which they were logged. Empty if the directory contains no run.
        """
        if not (self.directory / JOURNAL).exists():
            return []
        return [row for row in metrics.read_rows(self.directory) if row.log == log]

    def register_files(self, pattern: str) -> None:
        """Register files at the top level of the directory, so that they are archived with the run.

        Args:
            pattern: Glob relative to the run directory. Only the first part of a path is used.

        Raises:
            RuntimeError: If the run has ended.
        """
        self._opened().add_files(pattern)

    def close(self, status: Status | None = None, error: str | None = None) -> None:
        """End the run and wait until it is delivered.

        The functions in ``before_close`` are called first. If one of them raises, the run ends as FAILED and the
        exception is raised. Closing an ended run does nothing.

        Args:
            status: ``"FINISHED"``, ``"FAILED"``, or ``"KILLED"``. Defaults to ``"FINISHED"``.
            error: Error message of a run that did not finish.
        """
        while self.before_close:
            try:
                self.before_close.pop()()
            except BaseException as callback_error:
                self.close(*(outcome_of(callback_error) if status in (None, "FINISHED") else (status, error)))
                raise
        if isinstance(self._writer, HeldWriter) and self._writer.has_events:
            self.open()
        claim, writer = self._claim, self._writer
        if claim is not None:
            self._manifest, self._claim = claim.manifest, None
            claim.lock.release()
        self._is_closed = True
        if writer is None or isinstance(writer, HeldWriter):
            return
        status = writer.finish(status or "FINISHED", error and to_text(error))
        if isinstance(writer, RunWriter):
            self._manifest, self._writer = writer.manifest, None
        writer.close(status, self._close_timeout)

    def __enter__(self: _R) -> _R:
        if not self.is_open:
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*outcome_of(error))

    def _plan(self) -> Manifest:
        """Return the manifest of a new run, which is the same in each call before the run is opened."""
        if self._planned is None:
            self._planned = Manifest.new(self.directory, self._name)
        return self._planned

    def _expected_manifest(self) -> Manifest:
        """Return the manifest of the run that will be continued or started."""
        may_continue = self._resume or isinstance(self._writer, HeldWriter)
        manifest = (current_manifest(self.directory) if may_continue else None) or self._plan()
        self._read_id = manifest.id
        return manifest

    def _opened(self, *, is_rewound: bool = False) -> RunWriter | NullWriter | HeldWriter:
        """Return the writer, after opening and starting the run if needed."""
        with self._lock:
            if self._writer is None and self._claim is None:
                self.open()
            if self._writer is None:
                assert self._claim is not None
                self._start(self._claim, is_rewound=is_rewound)
            assert self._writer is not None
            return self._writer

    def _start(self, claim: Claim, *, is_rewound: bool = False) -> None:
        """Start the session of a claimed run."""
        claim.prepare()
        writer = RunWriter(claim)
        if is_rewound:
            writer.rewind()
        if claim.is_reopened:
            writer.begin({}, {})
        else:
            writer.begin(self._params, self._tags)
        self._writer, self._claim = writer, None


@atexit.register
def _close_all() -> None:
    for run in list(_runs):
        error = last_error()
        run.close(*outcome_of(None if error is run._error_before else error))


def _detach_in_child() -> None:
    # A forked child, such as a data loader worker, writes nothing, because the parent continues to write the run.
    for run in _runs:
        if isinstance(run._writer, RunWriter):
            _parent_writers.append(run._writer)
            run._writer = NullWriter(run._writer)
        run.before_close.clear()  # the functions belong to the parent, whose threads do not exist in the child
        run._lock = threading.RLock()


os.register_at_fork(after_in_child=_detach_in_child)
