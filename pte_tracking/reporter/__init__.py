"""Reported values: collected in one dictionary per iteration and averaged over an interval.

A value is converted to a plain number when it is reported. Only a tensor on another device remains a tensor, detached
and copied, until its number is needed: reading the number would make the host wait for the device.
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
