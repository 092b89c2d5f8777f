"""What the training observes: reported from anywhere, collected in one dictionary, averaged over an interval.

A value is a plain number from the moment it is reported. Only what lies on another device stays there, detached from
its graph and copied, until somebody needs the number: reading it would make the host wait for the device.
"""

from __future__ import annotations

from pte_tracking.reporter._reporter import (
    Reporter,
    ReportScope,
    get_current_reporter,
    report,
    report_scope,
)
from pte_tracking.reporter._summary import DictSummary, Summary, SummaryState
from pte_tracking.reporter._values import Observation, Value

__all__ = [
    "DictSummary",
    "Observation",
    "ReportScope",
    "Reporter",
    "Summary",
    "SummaryState",
    "Value",
    "get_current_reporter",
    "report",
    "report_scope",
]
