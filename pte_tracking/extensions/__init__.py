"""Extensions: what runs beside the iterations of a training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pte_tracking.extensions.evaluator import Evaluator as Evaluator
    from pte_tracking.extensions.ignite_evaluator import IgniteEvaluator as IgniteEvaluator
    from pte_tracking.extensions.parameter_histogram import ParameterHistogram as ParameterHistogram
    from pte_tracking.extensions.parameter_statistics import ParameterStatistics as ParameterStatistics
    from pte_tracking.extensions.plot_report import PlotReport as PlotReport
    from pte_tracking.extensions.system_metrics import SystemMetrics as SystemMetrics
    from pte_tracking.extensions.variable_statistics_plot import VariableStatisticsPlot as VariableStatisticsPlot
else:
    # Loaded when first used: each costs only those who want it.
    _HOME_OF = {
        "Evaluator": "evaluator",
        "IgniteEvaluator": "ignite_evaluator",
        "ParameterHistogram": "parameter_histogram",
        "ParameterStatistics": "parameter_statistics",
        "PlotReport": "plot_report",
        "SystemMetrics": "system_metrics",
        "VariableStatisticsPlot": "variable_statistics_plot",
    }
    __all__ = sorted(_HOME_OF)

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
