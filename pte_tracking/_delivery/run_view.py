"""Run as a sink sees it, read from the journal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._store import journal_reader
from pte_tracking._store.events import AnyEvent, Rewound
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest


class JournalRunView:
    """The run as a sink sees it; see :class:`pte_tracking.sinks._contract.RunView`."""

    def __init__(self, directory: Path, manifest: Manifest, selection: EventFilter) -> None:
        self.directory = directory
        self.id = manifest.id
        self.name = manifest.name
        self.start_time = manifest.start_time
        self.context: Mapping[str, str] = manifest.context
        self._journal = directory / JOURNAL
        self._filter = selection
        #: Up to where the sink had been given events when the rewind came.
        self.delivered_position = 0

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        """See :meth:`pte_tracking.sinks._contract.RunView.history`."""
        pieces = journal_reader.effective_ranges(self._journal, upto_seq=upto_seq)
        found = (event for piece in pieces for event, _ in journal_reader.read(self._journal, *piece))
        last = math.inf if upto_seq is None else upto_seq
        return self._filter.restarted().select(itertools.takewhile(lambda event: event.seq <= last, found))

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        """See :meth:`pte_tracking.sinks._contract.RunView.superseded`."""
        gone = journal_reader.read_effective(self._journal, self.delivered_position, rewound.to_position)
        return self._filter.restarted().select(event for event, _ in gone)
