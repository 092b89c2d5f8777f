"""Exceptions of connections to backends."""

from __future__ import annotations

from collections.abc import Mapping


class RejectedEventError(Exception):
    """Raised by :meth:`Connection.write` when a backend can never store an event.

    The event is skipped and logged. The other events of the batch are delivered.

    Args:
        seq: Sequence number of the event.
        reason: Explanation for the log.

    Attributes:
        seq: Sequence number of the event.
        reason: Explanation for the log.

    Example:
        >>> from pte_tracking.sinks import RejectedEventError
        >>> raise RejectedEventError(7, "The image is damaged.")
        Traceback (most recent call last):
        pte_tracking.sinks._errors.RejectedEventError: (7, 'The image is damaged.')
    """

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(seq, reason)
        self.seq = seq
        self.reason = reason


class PostponedEventsError(Exception):
    """Raised by :meth:`Connection.write` when files of some events cannot be stored now, and all other events were.

    The postponed events count as pending. Each of them is delivered again later, in a batch of its own, while other
    events are delivered. Until then, later events that have a file or a text wait, too.

    Args:
        reasons: Explanations for the log by sequence number. The events are neither metrics nor tags.

    Attributes:
        reasons: Explanations for the log by sequence number.

    Example:
        >>> from pte_tracking.sinks import PostponedEventsError
        >>> raise PostponedEventsError({7: "The artifact store is not reachable."})
        Traceback (most recent call last):
        pte_tracking.sinks._errors.PostponedEventsError: {7: 'The artifact store is not reachable.'}
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(reasons)
        self.reasons = dict(reasons)


class SinkClosedError(Exception):
    """Raised when a backend does not accept events of the run any more.

    A typical cause is a run that was deleted in the backend. The message is logged once, and the delivery stops until
    the next start of the run or ``pte-tracking sync``. Until then, the events count as pending.

    Args:
        reason: Explanation for the log, with a remedy unless ``is_lost`` is True.
        is_lost: Whether the backend has nothing of the run any more, for example because its database was replaced. The
            delivery then does not stop: a new connection with an empty state receives all events again at once. Only a
            connection that has received nothing stops the delivery also in this case. Defaults to False.

    Attributes:
        is_lost: Whether the backend has nothing of the run any more.

    Example:
        >>> from pte_tracking.sinks import SinkClosedError
        >>> raise SinkClosedError("The run was deleted.")
        Traceback (most recent call last):
        pte_tracking.sinks._errors.SinkClosedError: The run was deleted.
    """

    def __init__(self, reason: str = "", *, is_lost: bool = False) -> None:
        super().__init__(reason)
        self.is_lost = is_lost
