"""Extensions that read weights and gradients. Tests with unusual, sharded, and flat weights use each of them."""

from __future__ import annotations

from typing import Any

from pte_tracking import extensions

WEIGHT_READERS: list[Any] = [
    extensions.ParameterStatistics,
    extensions.ParameterHistogram,
    extensions.VariableStatisticsPlot,
]
