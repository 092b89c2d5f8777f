"""Run as a sink sees it, read from the journal."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._store import journal_reader
from pte_tracking._store.events import AnyEvent, Rewound
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest, RunNotFoundError


class JournalRunView:
    """Run as a sink sees it; see :class:`pte_tracking.sinks.RunView`.

    Args:
        directory: The run directory.
        manifest: Manifest of the run.
        event_filter: Filter of the sink.
    """

    def __init__(self, directory: Path, manifest: Manifest, event_filter: EventFilter) -> None:
        self.directory = directory
        self.id = manifest.id
        self.name = manifest.name
        self.start_time = manifest.start_time
        self._group = {} if manifest.group is None else {"group": manifest.group}
        self._context: Mapping[str, str] = manifest.context | self._group
        self._journal = directory / JOURNAL
        self._filter = event_filter
        #: Journal position up to which the sink had received events before the current rewind, in bytes.
        self.delivered_position = 0
        #: Returns the samples of system metrics that the sink has received.
        self.samples: Callable[[], Iterable[AnyEvent]] = tuple

    @property
    def context(self) -> Mapping[str, str]:
        """Origin of the first start; see :attr:`pte_tracking.sinks.RunView.context`."""
        if "git_commit" not in self._context:  # The training process adds it after the start.
            with contextlib.suppress(RunNotFoundError, OSError):
                self._context = Manifest.load(self.directory).context | self._group
        return self._context

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        """Return the effective history; see :meth:`pte_tracking.sinks.RunView.history`."""
        ranges = journal_reader.effective_ranges(self._journal, upto_seq=upto_seq)
        events = (event for journal_range in ranges for event, _ in journal_reader.read(self._journal, *journal_range))
        last = math.inf if upto_seq is None else upto_seq
        selected = itertools.takewhile(lambda event: event.seq <= last, events)
        return self._filter.restarted().select(itertools.chain(selected, self.samples()))

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        """Return the superseded events; see :meth:`pte_tracking.sinks.RunView.superseded`."""
        superseded = journal_reader.read_effective(self._journal, self.delivered_position, rewound.to_position)
        return self._filter.restarted().select(event for event, _ in superseded)
