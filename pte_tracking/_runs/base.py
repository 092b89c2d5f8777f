"""Life cycle of a run: it is opened, started, and ended."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pte_tracking._runs.directory import Claim, claim_directory
from pte_tracking._runs.directory_lock import DirectoryInUseError
from pte_tracking._runs.exit_status import is_interpreter_ending
from pte_tracking._runs.forking import Fork
from pte_tracking._runs.held_writer import HeldWriter, Interim
from pte_tracking._runs.live_runs import add_run, await_at_exit, collect_others, end_earlier, end_earlier_when_written
from pte_tracking._runs.null_writer import ForkedRun, NullWriter
from pte_tracking._runs.outcome import ErrorId, Outcome, last_error_id, outcome_at_exit, outcome_of, uncaught_error
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.reader import RunReader
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store import events
from pte_tracking._store.events import Status
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.messages import is_handling_message
from pte_tracking._store.values import to_text

_logger = logging.getLogger("pte_tracking")

#: Writers of the parent, in a forked child. Deleting them would close their files and write buffered data twice.
_parent_writers: list[RunWriter] = []

_R = TypeVar("_R", bound="RunBase")


class RunBase(RunReader):
    """Base class of :class:`~pte_tracking.Run` that opens and ends a run."""

    #: Last uncaught exception when the run was opened.
    error_before: ErrorId | None = None
    uncaught_error: BaseException | None = None  #: exception that ends the process
    #: Outcome of the run if it is collected now. None if it depends on the exception that is being handled.
    outcome_if_collected: Outcome | None = None

    def _register(self) -> None:
        add_run(self)

    def hold(self, *, resume: bool | None = None) -> None:
        """Keep what is logged in memory until :meth:`open`, because a resume decides which run it belongs to.

        A manager calls this method. :meth:`close` opens the run if something was logged.

        Args:
            resume: Whether :meth:`close` continues the run in the directory. Defaults to that of the constructor.
        """
        if self._writer is None:
            self._writer = HeldWriter(self._lock)
        if resume is not None:
            self._resume = resume

    def open(
        self,
        at: RunPosition | None = None,
        *,
        resume: bool | None = None,
        journal: Path | None = None,
        is_fork: bool = False,
    ) -> None:
        """Lock the directory and start or continue the run. Do nothing on a rank other than 0.

        A run that is continued stays unchanged until something is logged. It is rewound by :meth:`rewind`.

        Args:
            at: Position to which :meth:`rewind` returns the run. Another run in the directory is archived. If the
                directory does not contain the run of the position, the run is created there. None does not rewind.
            resume: Whether to continue the run in the directory if ``at`` is None. Defaults to the argument ``resume``
                of the constructor. A run that ended continues.
            journal: Journal to copy if the directory has none, such as that of a snapshot from another machine.
            is_fork: Whether to start a new run with the history of the run of ``at`` up to this position.

        Raises:
            DirectoryInUseError: If another live process writes to the directory.
            RunNotFoundError: If the run in the directory is unreadable.
            RuntimeError: If the run is already open, or if it ended and the directory contains another run.
        """
        if isinstance(self._writer, NullWriter):
            return
        if self.is_open:
            raise RuntimeError(f"The run in {str(self.directory)!r} is already open.")
        self._open(at, resume, journal, Fork(at, self._params) if at and is_fork else None)

    def _open(
        self,
        at: RunPosition | None,
        resume: bool | None,
        journal: Path | None = None,
        fork: Fork | None = None,
        after_step: int | None = None,
    ) -> None:
        """Open the run as :meth:`open` does, and rewind a run that is continued to the end of a step, if given."""
        end_earlier(self)
        with self._lock:
            held = self._writer if isinstance(self._writer, HeldWriter) else None
            with self._holding_calls():
                self._claim_and_start(at, resume, journal, fork, held)
                if after_step is not None:
                    self._start_after(after_step)
            if held:
                held.release(self._opened)

    def _start_after(self, step: int) -> None:
        """Start the session of the claimed run after a step, unless the run is new and has started."""
        if self._claim is not None:
            with self._holding_calls():
                self._start(self._claim, after_step=step)
        elif step > 0:
            _logger.warning(
                "%s contains no run to resume at step %d, so a new run starts there. To continue an earlier run, pass "
                "its directory.",
                self.directory,
                step,
            )

    def _claim_and_start(
        self,
        at: RunPosition | None,
        resume: bool | None,
        journal: Path | None,
        fork: Fork | None,
        held: HeldWriter | None,
    ) -> None:
        ended = self._manifest
        claim = self._claim_directory(at, resume if ended is None else True, held.files if held else (), journal, fork)
        if at is None:
            claim.check_continues(ended)
        claim.check_id(self._read_id)
        claim.check_group(self._group)
        claim.is_reopened = self._is_closed and ended is not None
        self._writer, self._claim, self._is_closed = None, claim, False
        self.error_before = last_error_id()
        if fork:
            fork.log_start(self.directory)
        if claim.is_new and at is None:
            try:
                self._start(claim)
            except BaseException:
                claim.lock.release()
                self._writer, self._claim = held, None
                raise

    def _claim_directory(
        self, at: RunPosition | None, resume: bool | None, files: Sequence[str], journal: Path | None, fork: Fork | None
    ) -> Claim:
        claim = functools.partial(
            claim_directory,
            self.directory,
            at,
            self._resume if resume is None else resume,
            plan=self._plan,
            sinks=self._sinks,
            files=files,
            world_size=self._world_size,
            group=self._group,
            journal=journal,
            fork=fork,
        )
        try:
            return claim()
        except DirectoryInUseError:
            collect_others(self)
        return claim()

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

    def end_earlier_runs(self) -> None:
        """End other runs of this process in the directory that are complete, or that an exception left."""
        end_earlier_when_written(self)

    def attach(self, manifest: Manifest) -> None:
        """Set the manifest on a rank other than 0, so that its ID and name are available. Do nothing on rank 0.

        Args:
            manifest: Manifest of the run that rank 0 has opened.
        """
        if isinstance(self._writer, NullWriter):
            self._writer.attach(manifest)

    def close(self, status: Status | None = None, error: str | None = None, stopped_by: str | None = None) -> None:
        """End the run and wait until it is delivered.

        The functions in ``before_close`` are called first. If one of them raises, the run ends as FAILED and the
        exception is raised. Closing an ended run does nothing.

        Args:
            status: ``"FINISHED"``, ``"FAILED"``, or ``"KILLED"``. Defaults to ``"FINISHED"``.
            error: Error message of a run that did not finish.
            stopped_by: Name of the exception that stopped the training on purpose, which becomes a tag.

        Raises:
            ValueError: If ``status`` is another one.
        """
        if status not in (None, "FINISHED", "FAILED", "KILLED"):
            raise ValueError(f"status: expected 'FINISHED', 'FAILED', or 'KILLED', got {status!r}")
        self._end(Outcome(status or "FINISHED", error, stopped_by))

    def end_with_process(self) -> None:
        """End the run when the process ends, with the status of the process."""
        self.uncaught_error = uncaught_error(self.error_before)
        self._end(outcome_at_exit(self.error_before))

    def detach_in_child(self) -> None:
        """Write nothing in a forked child."""
        if not isinstance(self._writer, NullWriter):
            if isinstance(self._writer, RunWriter):
                _parent_writers.append(self._writer)
            writer = self._writer if isinstance(self._writer, RunWriter) else None
            source = self._claim or writer
            manifest = self._manifest if source is None else source.manifest
            self._writer = NullWriter(ForkedRun(self.directory, writer, manifest, self._pid))
        self.before_close.clear()  # the functions belong to the parent, whose threads do not exist in the child
        self._lock = threading.RLock()

    def __del__(self) -> None:
        # Python ignores exceptions here, and prints them.
        if not hasattr(self, "_pid") or sys is None or sys.is_finalizing():
            return  # the constructor raised, or modules are being cleared and the runs ended before
        is_exiting = is_interpreter_ending()
        outcome = self.outcome_if_collected or (
            outcome_at_exit(self.error_before) if is_exiting else outcome_of(sys.exc_info()[1])
        )
        with contextlib.suppress(Exception):
            self._end(outcome, is_collected=True)

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(
            f"Run: the run in {str(self.directory)!r} cannot be pickled or copied, because only the process that "
            "created it writes it. Pass the values to that process and log them there."
        )

    def _end(self, outcome: Outcome, *, is_collected: bool = False) -> None:
        """End the run and wait until it is delivered. The exit of the process waits for a run that is collected."""
        while self.before_close:
            try:
                self.before_close.pop()()
            except BaseException as callback_error:
                self._end(outcome_of(callback_error) if outcome.status == "FINISHED" else outcome)
                raise
        status, error, stopped_by = outcome
        if isinstance(self._writer, HeldWriter) and self._writer.has_events:
            self.open()
        claim, writer = self._claim, self._writer
        if claim is not None:
            self._manifest, self._claim = claim.manifest, None
            claim.release()
        self._is_closed = True
        if writer is None or isinstance(writer, HeldWriter):
            return
        if status != "FINISHED" and self.describe_progress is not None:
            error = "; ".join(part for part in (error, self.describe_progress()) if part)
        try:
            with self._holding_calls(drops_messages=True):
                if stopped_by:
                    writer.add(events.Tags, {"stopped_by": stopped_by})
                status = writer.finish(status, error and to_text(error))
                if isinstance(writer, RunWriter):
                    self._manifest, self._writer = writer.manifest, None
                writer.close(status)
                if is_collected and isinstance(writer, RunWriter) and writer.end_wait:
                    await_at_exit(writer.end_wait, self._close_timeout)
                else:
                    writer.wait(self._close_timeout)
        except BaseException:  # such as an interrupt: another run of this process may continue in the directory
            if isinstance(writer, RunWriter):
                self._manifest, self._writer = writer.manifest, None
                writer.release()
            raise

    def __enter__(self: _R) -> _R:
        if not self.is_open:
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*outcome_of(error))

    def _opened(self, *, is_rewound: bool = False) -> RunWriter | NullWriter | HeldWriter:
        """Return the writer, after opening and starting the run if needed."""
        with self._lock:
            if self._writer is None and (interim := self._interim) and interim.thread == threading.get_ident():
                return NullWriter() if interim.drops_messages and is_handling_message() else interim.writer
            if self._writer is None and self._claim is None:
                self.open()
            if self._writer is None:
                assert self._claim is not None
                with self._holding_calls():
                    self._start(self._claim, is_rewound=is_rewound)
            assert self._writer is not None
            return self._writer

    @contextlib.contextmanager
    def _holding_calls(self, *, drops_messages: bool = False) -> Iterator[None]:
        """Hold what a signal handler or a logging handler of this thread logs while the run is opened or ended.

        Args:
            drops_messages: Whether to drop messages of this package that a logging handler logs to the run. They would
                open the run again.
        """
        if self._interim is not None:
            yield
            return
        self._interim = interim = Interim(HeldWriter(threading.RLock()), threading.get_ident(), drops_messages)
        try:
            yield
        finally:
            self._interim = None
        interim.writer.release(self._opened)

    def _start(self, claim: Claim, *, is_rewound: bool = False, after_step: int | None = None) -> None:
        """Start the session of a claimed run."""
        claim.prepare()
        writer = RunWriter(claim)
        if is_rewound:
            writer.rewind()
        if after_step is not None:
            writer.resume_at(after_step)
        if claim.is_reopened:
            writer.begin({}, {})
        elif claim.fork:
            writer.begin(self._params, {**self._tags, **claim.fork.tags()}, is_started=True)
        else:
            writer.begin(self._params, self._tags)
        self._writer, self._claim = writer, None
