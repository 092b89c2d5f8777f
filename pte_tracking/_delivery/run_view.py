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
        group = {} if manifest.group is None else {"group": manifest.group}
        self.context: Mapping[str, str] = manifest.context | group
        self._journal = directory / JOURNAL
        self._filter = event_filter
        #: Journal position up to which the sink had received events before the current rewind, in bytes.
        self.delivered_position = 0

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        """Return the effective history; see :meth:`pte_tracking.sinks.RunView.history`."""
        ranges = journal_reader.effective_ranges(self._journal, upto_seq=upto_seq)
        events = (event for journal_range in ranges for event, _ in journal_reader.read(self._journal, *journal_range))
        last = math.inf if upto_seq is None else upto_seq
        return self._filter.restarted().select(itertools.takewhile(lambda event: event.seq <= last, events))

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        """Return the superseded events; see :meth:`pte_tracking.sinks.RunView.superseded`."""
        superseded = journal_reader.read_effective(self._journal, self.delivered_position, rewound.to_position)
        return self._filter.restarted().select(event for event, _ in superseded)
