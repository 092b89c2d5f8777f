"""Open connection to a backend, and the view of the run that it delivers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pte_tracking._store.events import AnyEvent, Rewound, Status


class RunView(Protocol):
    """Read access to the run that a sink delivers.

    Example:
        A test that opens a connection without a run can pass any object with these attributes:

        >>> import types
        >>> from pathlib import Path
        >>> view = types.SimpleNamespace(
        ...     id="0" * 32, name="result", directory=Path("/tmp/result"), start_time=0.0, context={}
        ... )
        >>> view.name
        'result'
    """

    @property
    def id(self) -> str:
        """Run ID of 32 hexadecimal digits. It stays the same after every resume."""

    @property
    def name(self) -> str:
        """Display name of the run. Defaults to the directory name and a short ID, such as ``result-8e2313``."""

    @property
    def directory(self) -> Path:
        """Absolute path of the run directory. Paths in events are relative to it."""

    @property
    def start_time(self) -> float:
        """Time of the first start, in seconds since the epoch."""

    @property
    def context(self) -> Mapping[str, str]:
        """Origin of the first start.

        Keys are ``user``, ``host``, ``command``, ``source``, ``git_commit``, ``git_branch``, ``git_remote``,
        ``git_dirty``, ``git_root`` and ``group``. Unknown values are missing. Runs of one ``group``, such as a sweep,
        belong together. The Git repository is read after the start, so the event :class:`Provenance` of each session
        contains its state more reliably.
        """

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        """Iterate over the effective history as this sink receives it.

        Superseded events and rows for other sinks are left out, and keys are mapped to the limits of the sink. Use it
        to rebuild a file or to copy the history to a new run of the backend. A sink whose ``rewinds`` is False has
        received the superseded data points, and not the new ones at their steps, which this history contains instead.

        Args:
            upto_seq: Sequence number of the last event. Defaults to None: the whole journal.

        Returns:
            An iterator over the events, in order. Samples of system metrics that the sink has received follow at the
            end.
        """

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        """Iterate over the events that this sink has received and that a rewind supersedes.

        Args:
            rewound: The rewind.

        Returns:
            An iterator over the events, in order, with keys mapped to the limits of the sink.
        """


class Connection(Protocol):
    """Open connection to a backend, returned by :meth:`Sink.open`.

    Any class with these methods is a connection. See :class:`Sink` for an example.
    """

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Store a batch of events, in order.

        The events must be durable when the method returns. Skip events that the backend cannot show. A batch may be
        delivered twice, if a crash occurs after the write and before the cursor is saved. The second delivery must not
        change the result. A :class:`Rewound` event is always the only event of its batch. It is delivered only if
        :attr:`Sink.rewinds` is True.

        Args:
            events: Events within the limits of the sink. The batch is never empty.

        Raises:
            RejectedEventError: If one event can never be stored. The remaining events are delivered again immediately.
            PostponedEventsError: If the files of some events cannot be stored now. All other events are stored.
            SinkClosedError: If the backend does not accept events of the run any more.
            Exception: If the backend is temporarily unavailable. The connection is closed, and a new one is opened
                after a pause, with the last saved state.
        """

    def state(self) -> dict[str, Any]:
        """Return the state that a later connection needs to continue.

        The state is saved together with the cursor, atomically, after each batch and after :meth:`close`, so the method
        must also work on a closed connection.

        Returns:
            A small dictionary of plain JSON values. Empty if the backend itself drops repeated events.
        """

    def close(self, status: Status | None) -> None:
        """Close the connection.

        Args:
            status: Final status of the run, if all events were written. None if the connection closes before the run
                ends, or after a failure.

        Raises:
            SinkClosedError: If the backend does not accept events of the run any more.
            Exception: If the backend is temporarily unavailable. The call is repeated later on a new connection.
        """


class PolledConnection(Connection, Protocol):
    """Connection of a sink with :attr:`Sink.poll_seconds`, for a backend that acts while no events arrive."""

    def poll(self, status: Status) -> bool:
        """Act on the time or on the status of the run, such as to report that a training makes no progress.

        The delivery process calls the method after the pending events are written: every :attr:`Sink.poll_seconds`
        while the run is in progress, and before :meth:`close` when the run has ended. :meth:`state` is called and
        saved after each call, even if the call fails.

        Args:
            status: ``"RUNNING"`` while the training process is alive, otherwise the final status of the run.

        Returns:
            Whether the method is called again immediately, after the state is saved.

        Raises:
            SinkClosedError: If the backend does not accept events of the run any more.
            Exception: If the backend is temporarily unavailable. The connection is closed, and a new one is opened
                after a pause, with the saved state. New events are written meanwhile.
        """
