"""Saved journal position and state of a sink."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from pte_tracking._platform.files import sync_file
from pte_tracking._store.events import Status
from pte_tracking._store.files import safe_file_name, write_atomically
from pte_tracking._store.journal_reader import seq_at
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.secrets import mask_secrets

#: Kind of a failed delivery.
ErrorKind = Literal["auth", "network", "other"]

_logger = logging.getLogger("pte_tracking")
_MAX_ERROR_LENGTH = 2000  # characters


class Cursor(msgspec.Struct):
    """Position and state of a sink, as stored in ``delivery/<key>.json``.

    Attributes:
        position: Journal position up to which all events are durable in the backend, in bytes.
        seq: Sequence number of the last event before ``position``.
        state: State of the sink's connection.
        filter: State of the event filter.
        batch_end: Journal position at which the current batch ends. After a crash before ``position`` is saved, exactly
            this batch is delivered again, so that the content of the backend is known when a rewind follows.
        superseded: Ranges of journal positions that were delivered to a backend that cannot rewind, and superseded
            afterwards.
        end_status: Status that the backend received at the end of the run. None while the run continues.
        closed_reason: Why the backend accepts no events of the run. None if it does.
        error: Type and message of the last attempt's error. None if the attempt succeeded.
        error_kind: ``"auth"`` if the backend refuses the credentials, ``"network"`` if it cannot be reached, else
            ``"other"``.
        error_time: Time of the error, in seconds since the Unix epoch.
        rejected: Reasons for which the backend rejected events, by sequence number.
        postponed: Events before ``position`` whose files wait for the backend, by sequence number: a position before
            the event, and the reason, which is empty if the event waits for an earlier one. The next one to deliver
            comes first.
        hidden: Kinds of delivered events that the backend does not show.
        samples: Position in each file with samples of system metrics, in bytes.
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
    postponed: dict[str, tuple[int, str]] = {}
    hidden: list[str] = []
    samples: dict[str, int] = {}

    @classmethod
    def load(cls, directory: Path, key: str) -> Cursor:
        """Read the cursor of a sink.

        Args:
            directory: The run directory.
            key: Key of the sink in the run.

        Returns:
            The cursor. A new cursor if the file is missing or damaged, so all events are delivered again.
        """
        try:
            return msgspec.json.decode(cursor_path(directory, key).read_bytes(), type=cls)
        except FileNotFoundError:
            return cls()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _logger.warning("%s: damaged (%s), delivering all events again", cursor_path(directory, key), error)
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
        is_durable: Whether a saved cursor survives a loss of power. Otherwise, an earlier one may remain.
    """

    def __init__(self, directory: Path, key: str, *, is_durable: bool = False) -> None:
        self._directory = directory
        self._key = key
        self._is_durable = is_durable
        self._is_revoked = False

    def load(self) -> Cursor:
        """Read the cursor, and check that it belongs to the journal; see :meth:`Cursor.load`."""
        cursor, journal = Cursor.load(self._directory, self._key), self._directory / JOURNAL
        if cursor.position and seq_at(journal, cursor.position) != cursor.seq:
            _logger.warning("%s: the journal was replaced or truncated, delivering all events again", self._key)
            return Cursor()
        if cursor.batch_end > cursor.position and seq_at(journal, cursor.batch_end) is None:
            cursor.batch_end = cursor.position  # a loss of power took the end of the batch
        return cursor

    def save(self, cursor: Cursor) -> None:
        """Replace the file atomically. Do nothing after :meth:`revoke`."""
        if self._is_revoked:
            return
        if self._is_durable:
            sync_file(self._directory / JOURNAL)  # the events before the position must not be lost either
        path = cursor_path(self._directory, self._key)
        write_atomically(path, msgspec.json.encode(cursor), is_durable=self._is_durable)

    def revoke(self) -> None:
        """Make every later :meth:`save` do nothing."""
        self._is_revoked = True


def expect_delivered(directory: Path, keys: Iterable[str], position: int) -> None:
    """Write the cursors of a run whose journal comes from another directory, which may have delivered all of it.

    All events up to the position are delivered again before a rewind after it, so the rewind is delivered, too.

    Args:
        directory: Run directory.
        keys: Keys of the sinks in the run.
        position: End of the journal in bytes.
    """
    for key in keys:
        CursorStore(directory, key).save(Cursor(batch_end=position))


def describe_error(error: BaseException) -> str:
    """Return the type and message of an exception in one line."""
    return " ".join(mask_secrets(f"{type(error).__name__}: {error}").split())[:_MAX_ERROR_LENGTH]


def _error_kind(error: BaseException) -> ErrorKind:
    if isinstance(error, PermissionError):
        return "auth"
    return "network" if isinstance(error, OSError) else "other"


def cursor_path(directory: Path, key: str) -> Path:
    """Return the path of a sink's cursor."""
    return directory / DELIVERY / f"{safe_file_name(key)}.json"
