"""Life cycle of a run."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pte_tracking._delivery.sink_entries import check_sinks
from pte_tracking._distributed import environment
from pte_tracking._runs.directory import open_writer, read_start_position
from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.outcome import last_error, outcome_of
from pte_tracking._runs.writer import RunPosition, RunWriter
from pte_tracking._store import events
from pte_tracking._store.events import Status
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.values import check_key, flatten_params, to_text, to_texts
from pte_tracking.sinks import Sink

_open_runs: weakref.WeakSet[RunBase] = weakref.WeakSet()
#: In a forked child: closing the parent's files here would write their buffers a second time.
_parent_writers: list[RunWriter] = []

_R = TypeVar("_R", bound="RunBase")


class RunBase:
    """Base class of :class:`~pte_tracking.Run` that opens and ends it."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        sinks: Iterable[str | Sink] = ("json",),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        name: str | None = None,
        resume: bool = False,
        close_timeout: float = 30.0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if not isinstance(directory, str | os.PathLike):
            raise TypeError(f"out_dir: expected the path of a directory, got {directory!r}")
        if not os.fspath(directory):
            raise ValueError("out_dir: expected the path of a directory, got ''; '.' is the current one")
        self.directory = Path(os.path.abspath(directory))
        self._sinks = check_sinks(sinks)
        self._params = flatten_params(params or {})
        self._tags = to_texts(tags or {})
        self._name = name if name is None else check_key(name, "name")
        self._resume = resume
        self._close_timeout = close_timeout
        #: Called when the run is about to end, the last added first: the last things to be logged.
        self.before_close: list[Callable[[], object]] = []
        #: On rank 0: None before the run is opened. On all ranks: None after it has ended.
        self._writer: RunWriter | NullWriter | None = None
        if (environment.rank() if rank is None else rank) != 0:
            self._writer = NullWriter()
        #: Manifest of a run that has ended.
        self._manifest: Manifest | None = None
        self._logs: set[str] = set()
        self._lock = threading.RLock()
        self._is_closed = False
        self._world_size = environment.size() if world_size is None else world_size
        self._error_before: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether the directory is taken and the run has not ended."""
        return self._writer is not None and self._writer.manifest is not None

    @property
    def sinks(self) -> Sequence[Sink]:
        """Where it is delivered to, as constructed."""
        return self._sinks

    @property
    def id(self) -> str:
        """The run's identity, the same after every resume: 32 hexadecimal digits. Opens the run.

        On other ranks than 0 it is known when the training begins; before that it is a RuntimeError.
        """
        return self._open_manifest().id

    @property
    def name(self) -> str:
        """The run's name. Opens the run."""
        return self._open_manifest().name

    @property
    def start_time(self) -> float:
        """When it first started, in seconds since the epoch. Opens the run."""
        return self._open_manifest().start_time

    def open(self, at: RunPosition | None = None, *, resume: bool | None = None, journal: Path | None = None) -> None:
        """Take the directory.

        Args:
            at: Go on from this point of its run, taking back what came after. Where the directory holds another run,
                that one is moved aside; where it does not hold this one, the run is made here again.
            resume: Without ``at``: go on with the run that is there, taking nothing back. By default as constructed.
            record: The journal of ``at``'s run from elsewhere, used where the directory has none.

        Raises:
            DirectoryInUseError: Another live process writes there.
            RuntimeError: The run is open, or has ended.
        """
        if self._is_closed:
            raise RuntimeError(f"the run in {str(self.directory)!r} has ended; go on with it by Run(..., resume=True)")
        if isinstance(self._writer, NullWriter):
            return
        if self._writer is not None:
            raise RuntimeError(f"the run in {str(self.directory)!r} is open already")
        with self._lock:
            self._writer = writer = open_writer(
                self.directory,
                at,
                self._resume if resume is None else resume,
                name=self._name,
                sinks=self._sinks,
                world_size=self._world_size,
                journal=journal,
            )
            if self._params:
                writer.add(events.Params, self._params)
            if self._tags:
                writer.add(events.Tags, self._tags)
            self._error_before = last_error()
        _open_runs.add(self)

    def manifest(self) -> Manifest:
        """What ``run.json`` holds. Opens the run."""
        return self._open_manifest()

    def attach(self, manifest: Manifest) -> None:
        """Learn, on another rank than 0, which run it is."""
        if isinstance(self._writer, NullWriter):
            self._writer.attach(manifest)

    def start_position(self) -> RunPosition | None:
        """The point before anything was logged in the directory's run; None if it holds none."""
        return read_start_position(self.directory)

    def position(self, step: int) -> RunPosition:
        """This moment in the run's life, for a snapshot. Before that is published, :meth:`sync` is called.

        Args:
            step: Iterations done.
        """
        return self._opened().position(step)

    def sync(self) -> None:
        """Make everything logged so far durable. Any thread may do it while others log.

        Raises:
            OSError: The disk is full or broken.
        """
        self._opened().sync()

    def close(self, status: Status | None = None, error: str | None = None) -> None:
        """End the run. What a function of ``before_close`` raises, it raises when the run has ended, as FAILED.

        Args:
            status: How it ended; by default FINISHED.
            error: What it failed with, for people.
        """
        while self.before_close:
            try:
                self.before_close.pop()()
            except BaseException as callback_error:
                self.close(*(outcome_of(callback_error) if status in (None, "FINISHED") else (status, error)))
                raise
        writer = self._writer
        if writer is None:
            self._is_closed = True
            return
        status = status or "FINISHED"
        writer.finish(status, error and to_text(error))
        self._is_closed, self._manifest, self._writer = True, writer.manifest, None
        _open_runs.discard(self)
        writer.close(status, self._close_timeout)

    def __enter__(self: _R) -> _R:
        if not self.is_open:
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*outcome_of(error))

    def _opened(self) -> RunWriter | NullWriter:
        with self._lock:
            if self._writer is None:
                self.open()
            assert self._writer is not None
            return self._writer

    def _open_manifest(self) -> Manifest:
        manifest = self._manifest or self._opened().manifest
        if manifest is None:
            raise RuntimeError(
                f"another rank writes the run in {str(self.directory)!r}; this one knows its id and its name when the "
                "training has begun"
            )
        return manifest


@atexit.register
def _close_all() -> None:
    for run in list(_open_runs):
        error = last_error()
        run.close(*outcome_of(None if error is run._error_before else error))


def _detach_in_child() -> None:
    # A forked child (a data loader's worker, say) writes nothing: the run is its parent's.
    for run in _open_runs:
        if isinstance(run._writer, RunWriter):
            _parent_writers.append(run._writer)
            run._writer = NullWriter(run._writer)
        run.before_close.clear()  # its parent's to do, with threads that are not here
        run._lock = threading.RLock()


os.register_at_fork(after_in_child=_detach_in_child)
