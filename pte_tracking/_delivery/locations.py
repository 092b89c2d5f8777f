"""Places where a user finds a run in its backends."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking._store.printable import escape_controls
from pte_tracking._store.signal_errors import raise_from_signal_handler
from pte_tracking.sinks import Sink, get_sink

_logger = logging.getLogger("pte_tracking")

#: Messages that this process has logged. A run that is opened again, and all runs of a sweep, have the same ones.
_logged: set[str] = set()


class SinkLocation(msgspec.Struct, frozen=True):
    """Place where a user finds a run in a backend.

    Attributes:
        key: Key of the sink in the run.
        run_id: ID of the run in the backend. None if the backend has no such ID.
        url: Web page of the run. None if there is no server.
        command: Command that opens the run. None if the web page suffices.
    """

    key: str
    run_id: str | None
    url: str | None
    command: str | None

    def __str__(self) -> str:
        if self.url:
            return f"{self.key}: {self.url}"
        parts = [f"run ID {self.run_id}"] if self.run_id else []
        parts += [f"open with: {self.command}"] if self.command else []
        return f"{self.key}: {', '.join(parts)}"


def find_location(directory: Path, entry: SinkEntry) -> SinkLocation | None:
    """Return the place of a run in one backend.

    Args:
        directory: The run directory.
        entry: Entry of the sink in the manifest.

    Returns:
        The place. None if nothing was delivered yet, or the backend has none.
    """
    try:
        sink = build_sink(entry)
    except (TypeError, ValueError):  # not installed here
        return None
    try:
        location = sink.locate(Path(os.path.abspath(directory)), Cursor.load(directory, entry.key).state)
        if location is None:
            return None
        # The parts come from files of the run directory, which may be somebody else's.
        parts = (location.run_id, location.url, location.command)
        return SinkLocation(entry.key, *(part and " ".join(escape_controls(part).split()) for part in parts))
    except Exception as error:  # A faulty backend must not end the training.
        raise_from_signal_handler(error)
        _log_once(logging.WARNING, f"{entry.key}: locate() failed: {type(error).__name__}: {error}")
        return None


def _has_locations(entry: SinkEntry) -> bool:
    try:
        return get_sink(entry.name).locate is not Sink.locate
    except (TypeError, ValueError):  # not installed here
        return False


def _log_once(level: int, text: str) -> None:
    if text not in _logged:
        _logged.add(text)
        _logger.log(level, "%s", text)


class Announcer:
    """Logs where a run is found in each backend, as soon as it is known, once in this process.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        #: Sinks whose place is not known yet. None before the first call.
        self._entries: list[SinkEntry] | None = None

    def announce(self) -> None:
        """Log the places that became known since the last call."""
        try:
            if self._entries is None:
                self._entries = [entry for entry in Manifest.load(self._directory).sinks if _has_locations(entry)]
            for entry in list(self._entries):
                location = find_location(self._directory, entry)
                if location is not None:
                    self._entries.remove(entry)
                    # A short line, because it may appear within a table. The command finds the run by itself.
                    short = msgspec.structs.replace(location, run_id=None) if location.command else location
                    _log_once(logging.INFO, str(short))
        except (OSError, ValueError) as error:
            raise_from_signal_handler(error)
            _logger.debug("%s: %s", self._directory, error)
