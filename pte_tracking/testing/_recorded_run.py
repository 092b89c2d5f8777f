"""Run whose journal is written by a test, and its delivery to one sink."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sample_consumer import SampleConsumer
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._platform.signals import KILLED_STATUS, kill
from pte_tracking._store import events
from pte_tracking._store.events import Number, Status
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.samples import SampleWriter
from pte_tracking.sinks import Sink

_TIMEOUT_SECONDS = 60  # The process delivers a few events, but the import of a client library takes seconds.


class RecordedRun:
    """Run with a journal and one sink.

    The test writes the journal and decides when events are delivered.

    Args:
        directory: Run directory. It must not exist.
        sink: Sink that receives the events.

    Attributes:
        directory: Run directory.
        manifest: Manifest of the run.
        journal: Journal of the run, to append events of any kind.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pte_backends.json import JsonSink
        >>> from pte_tracking.testing import RecordedRun
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     run = RecordedRun(Path(directory, "run"), JsonSink())
        ...     position = run.log(1, {"loss": 0.5})
        ...     run.end()
        ...     print((run.directory / "log").read_text())
        [
        {"loss":0.5,"iteration":1}
        ]
        <BLANKLINE>
    """

    def __init__(self, directory: Path, sink: Sink) -> None:
        self.directory = directory
        (directory / DELIVERY).mkdir(parents=True)
        self.manifest = msgspec.structs.replace(Manifest.new(directory, "contract"), sinks=merge_sink_entries([sink]))
        self.manifest.save(directory)
        self.journal = Journal(directory / JOURNAL)
        self.journal.append(events.RunStarted, self.manifest.id, self.manifest.name, 1, "host")
        self._consumer: SampleConsumer | None = None

    def log(self, step: int, values: Mapping[str, Number], epoch: float | None = None) -> JournalPosition:
        """Append a row of metrics to the journal.

        Args:
            step: Step of the row.
            values: Metrics by key.
            epoch: Number of completed epochs. Defaults to None.

        Returns:
            The position after the row, to which ``journal.rewind(position, step)`` can return.
        """
        self.journal.append(events.Metrics, step, dict(values), epoch)
        return self.journal.end

    def sample(self, values: Mapping[str, float]) -> None:
        """Append a sample of system metrics. Its step is its number, from 1.

        Args:
            values: Numbers by key. Each key begins with ``system/``.
        """
        with contextlib.closing(SampleWriter(self.directory, "node")) as writer:
            writer.append(values)

    def deliver(self, *, save_cursor: bool = True) -> None:
        """Deliver the pending events.

        If the connection raises an exception, the connection is discarded, and the exception is raised again. The next
        call opens another connection and repeats the events, as the delivery process does after a pause.

        Args:
            save_cursor: Whether to deliver all events and save the cursor (the default). If False, one batch is
                written, and a crash occurs before the cursor is saved. The next delivery repeats the batch.

        Raises:
            Exception: If the sink or its connection raises an exception, except a ``RejectedEventError``,
                ``PostponedEventsError``, or ``SinkClosedError``.
        """
        consumer = self._consumer or SampleConsumer(self.directory, self.manifest, self.manifest.sinks[0])
        self._consumer = None  # An exception discards the connection.
        if not save_cursor:
            consumer.save = _raise_crash  # type: ignore[method-assign]
            with contextlib.suppress(_CrashError):
                consumer.deliver_next()
            return
        while consumer.deliver_next():
            pass
        while consumer.poll("RUNNING"):
            pass
        self._consumer = consumer

    def deliver_and_kill(self, *, save_cursor: bool) -> None:
        """Deliver in a separate process that is killed.

        Args:
            save_cursor: Whether the process is killed after it has delivered all events and saved the cursor. If False,
                it is killed after one batch, before the cursor is saved.

        Raises:
            AssertionError: If the process does not end in time, or fails.
        """
        self._consumer = None
        process = multiprocessing.get_context("spawn").Process(
            target=_deliver_and_kill, args=(self.directory, save_cursor)
        )
        process.start()
        process.join(_TIMEOUT_SECONDS)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"The delivery took more than {_TIMEOUT_SECONDS} s.")
        assert process.exitcode == KILLED_STATUS, "The delivery process failed. See its output."

    def crash(self) -> None:
        """Discard the open connection without closing it, as a crash does."""
        self._consumer = None

    @property
    def rejected_events(self) -> dict[str, str]:
        """Reasons of rejected events by their sequence number."""
        return Cursor.load(self.directory, self.manifest.sinks[0].key).rejected

    def end(self, status: Status = "FINISHED") -> None:
        """Deliver all pending events and end the run.

        Args:
            status: Final status of the run. Defaults to ``"FINISHED"``. The journal of a killed run has no last event,
                so ``"KILLED"`` is only passed to the connection.

        Raises:
            Exception: If the sink or its connection raises an exception, as for :meth:`deliver`.
        """
        if status != "KILLED":
            self.journal.append(events.RunEnded, status, None)
        self.deliver()
        assert self._consumer is not None
        while self._consumer.poll(status):
            pass
        self._consumer.finish(status)
        self._consumer = None


class _CrashError(Exception):
    pass


def _raise_crash() -> None:
    raise _CrashError


def _deliver_and_kill(directory: Path, save_cursor: bool) -> None:
    manifest = Manifest.load(directory)
    consumer = SampleConsumer(directory, manifest, manifest.sinks[0])
    if not save_cursor:
        consumer.save = _kill_process  # type: ignore[method-assign]
    while consumer.deliver_next():
        pass
    _kill_process()


def _kill_process() -> None:
    kill(os.getpid())
