"""A run whose journal a test writes, and its delivery to one sink."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path

from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._store import events
from pte_tracking._store.events import Number
from pte_tracking._store.journal import Journal, JournalPosition
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Sink

_PATIENCE = 60  # seconds for a process that takes a handful of events; importing a product takes some of them


class Recorded:
    """A run's directory with a journal, and one sink that it is delivered to.

    Args:
        folder: An empty folder.
        sink: The sink.
    """

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.directory = folder
        (folder / DELIVERY).mkdir(parents=True)
        made = Manifest.new(folder, "contract")
        self.manifest = Manifest(made.id, made.name, made.start_time, merge_sink_entries([sink]), context=made.context)
        self.manifest.save(folder)
        self.journal = Journal(folder / JOURNAL)
        self.journal.append(events.RunStarted, made.id, made.name, 1, "host")
        self._channel: SinkConsumer | None = None

    def log(self, step: int, values: Mapping[str, Number], epoch: float | None = None) -> JournalPosition:
        """Append a row of metrics; returns the point behind it."""
        self.journal.append(events.Metrics, step, dict(values), epoch)
        return self.journal.end

    def deliver(self, *, saved: bool = True) -> None:
        """Deliver all there is.

        Args:
            saved: Or write one batch and 'crash' before its position is saved: it comes again with the next delivery.
        """
        if self._channel is None:
            self._channel = SinkConsumer(self.directory, self.manifest, self.manifest.sinks[0])
        if saved:
            while self._channel.deliver_next():
                pass
            return
        self._channel.save = _crash  # type: ignore[method-assign]
        with contextlib.suppress(_Crash):
            self._channel.deliver_next()
        self._channel = None

    def deliver_and_die(self, *, saved: bool) -> None:
        """Deliver in a process of its own, which is killed on its way: SIGKILL, so that it cleans nothing up.

        Args:
            saved: It dies when everything is written and saved, its connection still open; otherwise when a batch is
                written and its position is not saved yet.
        """
        self._channel = None
        process = multiprocessing.get_context("spawn").Process(target=_deliver_and_die, args=(self.directory, saved))
        process.start()
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"delivery took more than {_PATIENCE} s")
        assert process.exitcode == -signal.SIGKILL, "delivery failed in a process of its own; see its output"

    @property
    def refused(self) -> dict[str, str]:
        """The events that the sink could not store, by ``seq``, with its reason."""
        return Cursor.load(self.directory, self.manifest.sinks[0].key).rejected

    def end(self) -> None:
        """Deliver the rest, and the end of the run."""
        self.journal.append(events.RunEnded, "FINISHED", None)
        self.deliver()
        assert self._channel is not None
        self._channel.finish("FINISHED")
        self._channel = None


class _Crash(Exception):
    pass


def _crash() -> None:
    raise _Crash


def _deliver_and_die(directory: Path, saved: bool) -> None:
    manifest = Manifest.load(directory)
    channel = SinkConsumer(directory, manifest, manifest.sinks[0])
    if not saved:
        channel.save = _die  # type: ignore[method-assign]
    while channel.deliver_next():
        pass
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
