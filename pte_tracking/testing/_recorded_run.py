"""A run whose journal a test writes, and its delivery to one sink."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._store import events
from pte_tracking._store.events import Number
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Sink

_TIMEOUT_SECONDS = 60  # seconds for a process that takes a handful of events; importing a product takes some of them


class RecordedRun:
    """A run's directory with a journal, and one sink that it is delivered to.

    Args:
        folder: An empty folder.
        sink: The sink.
    """

    def __init__(self, directory: Path, sink: Sink) -> None:
        self.directory = directory
        (directory / DELIVERY).mkdir(parents=True)
        self.manifest = msgspec.structs.replace(Manifest.new(directory, "contract"), sinks=merge_sink_entries([sink]))
        self.manifest.save(directory)
        self.journal = Journal(directory / JOURNAL)
        self.journal.append(events.RunStarted, self.manifest.id, self.manifest.name, 1, "host")
        self._consumer: SinkConsumer | None = None

    def log(self, step: int, values: Mapping[str, Number], epoch: float | None = None) -> JournalPosition:
        """Append a row of metrics; returns the point behind it."""
        self.journal.append(events.Metrics, step, dict(values), epoch)
        return self.journal.end

    def deliver(self, *, save_cursor: bool = True) -> None:
        """Deliver all there is.

        Args:
            saved: Or write one batch and 'crash' before its position is saved: it comes again with the next delivery.
        """
        if self._consumer is None:
            self._consumer = SinkConsumer(self.directory, self.manifest, self.manifest.sinks[0])
        if save_cursor:
            while self._consumer.deliver_next():
                pass
            return
        self._consumer.save = _raise_crash  # type: ignore[method-assign]
        with contextlib.suppress(_Crash):
            self._consumer.deliver_next()
        self._consumer = None

    def deliver_and_kill(self, *, save_cursor: bool) -> None:
        """Deliver in a process of its own, which is killed on its way: SIGKILL, so that it cleans nothing up.

        Args:
            saved: It dies when everything is written and saved, its connection still open; otherwise when a batch is
                written and its position is not saved yet.
        """
        self._consumer = None
        process = multiprocessing.get_context("spawn").Process(
            target=_deliver_and_kill, args=(self.directory, save_cursor)
        )
        process.start()
        process.join(_TIMEOUT_SECONDS)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"delivery took more than {_TIMEOUT_SECONDS} s")
        assert process.exitcode == -signal.SIGKILL, "delivery failed in a process of its own; see its output"

    def crash(self) -> None:
        """Forget the open connection, as after a crash."""
        self._consumer = None

    @property
    def rejected_events(self) -> dict[str, str]:
        """The events that the sink could not store, by ``seq``, with its reason."""
        return Cursor.load(self.directory, self.manifest.sinks[0].key).rejected

    def end(self) -> None:
        """Deliver the rest, and the end of the run."""
        self.journal.append(events.RunEnded, "FINISHED", None)
        self.deliver()
        assert self._consumer is not None
        self._consumer.finish("FINISHED")
        self._consumer = None


class _Crash(Exception):
    pass


def _raise_crash() -> None:
    raise _Crash


def _deliver_and_kill(directory: Path, save_cursor: bool) -> None:
    manifest = Manifest.load(directory)
    consumer = SinkConsumer(directory, manifest, manifest.sinks[0])
    if not save_cursor:
        consumer.save = _kill_process  # type: ignore[method-assign]
    while consumer.deliver_next():
        pass
    _kill_process()


def _kill_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
