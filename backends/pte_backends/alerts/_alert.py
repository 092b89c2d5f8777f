"""One alert, and the texts of which it consists."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeAlias, get_args

#: Reason for an alert. An alert about a condition has the kind ``"condition"``.
AlertKind: TypeAlias = Literal["started", "finished", "failed", "killed", "nan", "stalled"]
ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)
CONDITION = "condition"

SEVERITIES = {"started": "info", "finished": "success", "failed": "failure", "killed": "failure"}


@dataclasses.dataclass(frozen=True)
class Alert:
    """Alert that is sent as one message.

    Attributes:
        kind: Kind of the alert.
        title: What happened, in one line.
        body: Details, one per line.
        time: Time in seconds since the Unix epoch.
    """

    kind: str
    title: str
    body: str
    time: float

    @property
    def severity(self) -> str:
        """Type of the notification in apprise."""
        return SEVERITIES.get(self.kind, "warning")
