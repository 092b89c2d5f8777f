"""Connection of a consumer to its backend."""

from __future__ import annotations

import math
import time
from typing import cast

from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store.events import Status
from pte_tracking._store.signal_errors import raise_from_signal_handler
from pte_tracking.sinks import Connection, PolledConnection, RunView, Sink


class BackendConnection:
    """Connection that is opened when it is needed.

    Args:
        sink: The sink.
        run: Run to deliver.

    Attributes:
        current: The open connection. None if it is closed.
    """

    def __init__(self, sink: Sink, run: RunView) -> None:
        self._sink = sink
        self._run = run
        self.current: Connection | None = None
        self._poll_time = -math.inf

    def open(self, cursor: Cursor) -> Connection:
        """Return the open connection. Open it with the saved state if it is closed.

        Raises:
            Exception: If the backend is not available.
        """
        if self.current is None:
            self.current = self._sink.open(self._run, cursor.state)
            cursor.closed_reason = None
        return self.current

    def is_poll_due(self, status: Status) -> bool:
        """Whether the sink is polled now: at its interval while the run is in progress, and after the run has ended."""
        interval = self._sink.poll_seconds
        return interval is not None and (status != "RUNNING" or time.monotonic() >= self._poll_time + interval)

    def poll(self, cursor: Cursor, status: Status) -> bool:
        """Poll the sink, and store its state in the cursor, also after a failure.

        Returns:
            Whether it must be polled again immediately.

        Raises:
            Exception: If the backend is not available.
        """
        connection = cast(PolledConnection, self.open(cursor))
        self._poll_time = time.monotonic()
        try:
            return connection.poll(status)
        finally:
            cursor.state = connection.state()

    def close(self, cursor: Cursor, status: Status | None) -> None:
        """Close the connection with a status, and store its last state in the cursor. Open it before if it is closed.

        Raises:
            Exception: If the backend is not available. The connection stays open.
        """
        connection = self.open(cursor)
        connection.close(status)
        cursor.state, self.current = connection.state(), None

    def discard(self) -> None:
        """Close the connection after a failure, which is already logged."""
        connection, self.current = self.current, None
        if connection is not None:
            try:
                connection.close(None)
            except Exception as error:
                raise_from_signal_handler(error)
