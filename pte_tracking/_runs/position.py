"""Position in a run."""

from __future__ import annotations

from typing import TypedDict


class RunPosition(TypedDict):
    """Position in a run, as stored in a snapshot.

    Attributes:
        id: ID of the run.
        name: Display name of the run.
        start_time: Time of the first start in seconds since the Unix epoch.
        step: Number of completed iterations.
        seq: Sequence number of the last event.
        position: Byte offset in the journal at which that event ends.
        directory: Absolute path of the run directory.
    """

    id: str
    name: str
    start_time: float
    step: int
    seq: int
    position: int
    directory: str
