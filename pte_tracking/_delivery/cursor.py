"""Saved journal position and state of a sink."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from pte_tracking._store.events import Status
from pte_tracking._store.files import safe_file_name, write_atomically
from pte_tracking._store.layout import DELIVERY

#: Kind of a failed delivery.
ErrorKind = Literal["auth", "network", "other"]

_logger = logging.getLogger("pte_tracking")
_MAX_ERROR_LENGTH = 2000  # characters


class Cursor(msgspec.Struct):
    """How far a sink is, as it stands in ``delivery/<key>.json``.

    Attributes:
        position: Everything before it is durable in the backend.
        seq: The last event before it.
        state: What the connection needs to go on.
        selection: What the selection needs to go on.
        reaching: Where the batch under way ends. If a crash comes before its position is saved, that very batch comes
            again before anything else, so that what the backend holds is known when a rewind takes some of it back.
        sent: Pieces of the journal, from position to position, that the backend got before they were taken back, and
            cannot forget.
        ended: The status with which the backend was told that the run ended; None while it goes on.
        closed: Why the backend will never take this run again.
        error: What the last attempt failed with.
        error_kind: ``"auth"`` if the backend refuses the credentials, ``"network"`` if it cannot be reached, else
            ``"other"``.
        error_time: When that was.
        set_aside: The events that the backend can never store, by seq, with its reason.
    """

    position: int = 0
    seq: int = 0
    state: dict[str, Any] = {}
    filter: dict[str, Any] = {}
    batch_end: int = 0
    superseded: list[tuple[int, int]] = []
    end_status: Status | None = None
    closed_reason: str | None = None
    error: str | None = None
    error_kind: ErrorKind | None = None
    error_time: float | None = None
    rejected: dict[str, str] = {}

    @classmethod
    def load(cls, directory: Path, key: str) -> Cursor:
        """Read it; a new one if there is none, or a damaged one (everything is delivered again then)."""
        try:
            return msgspec.json.decode(cursor_path(directory, key).read_bytes(), type=cls)
        except FileNotFoundError:
            return cls()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _logger.warning("%s: damaged (%s); everything is delivered again", cursor_path(directory, key), error)
            return cls()

    def record_error(self, error: BaseException) -> None:
        """Record why the last attempt failed."""
        self.error = describe_error(error)
        self.error_kind = _error_kind(error)
        self.error_time = time.time()

    def clear_error(self) -> None:
        """Record that the last attempt succeeded."""
        self.error = self.error_kind = self.error_time = None


class CursorStore:
    """File of a sink's cursor, with write access that can be revoked.

    Args:
        directory: The run directory.
        key: Key of the sink in the run.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self._directory = directory
        self._key = key
        self._is_revoked = False

    def load(self) -> Cursor:
        """Read the cursor; see :meth:`Cursor.load`."""
        return Cursor.load(self._directory, self._key)

    def save(self, cursor: Cursor) -> None:
        """Replace the file atomically. Do nothing after :meth:`revoke`."""
        if not self._is_revoked:
            write_atomically(cursor_path(self._directory, self._key), msgspec.json.encode(cursor))

    def revoke(self) -> None:
        """Make every later :meth:`save` do nothing."""
        self._is_revoked = True


def describe_error(error: BaseException) -> str:
    """Return the type and message of an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_ERROR_LENGTH]


def _error_kind(error: BaseException) -> ErrorKind:
    if isinstance(error, PermissionError):
        return "auth"
    return "network" if isinstance(error, OSError) else "other"


def cursor_path(directory: Path, key: str) -> Path:
    """Where a sink's progress is saved."""
    return directory / DELIVERY / f"{safe_file_name(key)}.json"
