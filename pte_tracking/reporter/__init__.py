"""Reported values: collected in one dictionary per iteration and averaged over an interval.

A value is converted to a plain number when it is reported. A tensor on another device remains a tensor, detached and
copied, until its number is needed: reading the number would make the host wait for the device. A function is called
when its number is needed. The weight of a value stays with the value, so it also reaches means that users take of
dictionaries from :func:`report_scope`.
"""

from __future__ import annotations

from pte_tracking.reporter._reporter import (
    Reporter,
    ReportScope,
    get_current_reporter,
    report,
    report_result,
    report_scope,
)
from pte_tracking.reporter._summary import DictSummary, Summary, SummaryState
from pte_tracking.reporter._values import DeferredValue, Observation, Value, WeightedValue, weight_of

__all__ = [
    "DeferredValue",
    "DictSummary",
    "Observation",
    "ReportScope",
    "Reporter",
    "Summary",
    "SummaryState",
    "Value",
    "WeightedValue",
    "get_current_reporter",
    "report",
    "report_result",
    "report_scope",
    "weight_of",
]
