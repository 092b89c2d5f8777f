"""Extensions, which the manager runs between the iterations of a training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pte_tracking.extensions._defaults import defaults as defaults
    from pte_tracking.extensions.best_value import BestValue as BestValue
    from pte_tracking.extensions.best_value import MaxValue as MaxValue
    from pte_tracking.extensions.best_value import MinValue as MinValue
    from pte_tracking.extensions.evaluator import Evaluator as Evaluator
    from pte_tracking.extensions.exponential_shift import ExponentialShift as ExponentialShift
    from pte_tracking.extensions.fail_on_non_number import FailOnNonNumber as FailOnNonNumber
    from pte_tracking.extensions.ignite_evaluator import IgniteEvaluator as IgniteEvaluator
    from pte_tracking.extensions.log_report import LogReport as LogReport
    from pte_tracking.extensions.lr_scheduler import LRScheduler as LRScheduler
    from pte_tracking.extensions.micro_average import MicroAverage as MicroAverage
    from pte_tracking.extensions.model_export import export_model as export_model
    from pte_tracking.extensions.model_summary import ModelSummary as ModelSummary
    from pte_tracking.extensions.monitor import Monitor as Monitor
    from pte_tracking.extensions.object_snapshot import snapshot_object as snapshot_object
    from pte_tracking.extensions.observe import observe_lr as observe_lr
    from pte_tracking.extensions.observe import observe_value as observe_value
    from pte_tracking.extensions.parameter_histogram import ParameterHistogram as ParameterHistogram
    from pte_tracking.extensions.parameter_statistics import ParameterStatistics as ParameterStatistics
    from pte_tracking.extensions.plot_report import PlotReport as PlotReport
    from pte_tracking.extensions.print_report import PrintReport as PrintReport
    from pte_tracking.extensions.progress_bar import ProgressBar as ProgressBar
    from pte_tracking.extensions.system_metrics import SystemMetrics as SystemMetrics
    from pte_tracking.extensions.training_snapshot import snapshot as snapshot
    from pte_tracking.extensions.variable_statistics_plot import VariableStatisticsPlot as VariableStatisticsPlot
else:
    # Each module is imported on first use, so that unused extensions do not slow down the import of the package.
    _MODULES = {
        "BestValue": "best_value",
        "Evaluator": "evaluator",
        "ExponentialShift": "exponential_shift",
        "FailOnNonNumber": "fail_on_non_number",
        "IgniteEvaluator": "ignite_evaluator",
        "LRScheduler": "lr_scheduler",
        "LogReport": "log_report",
        "MaxValue": "best_value",
        "MicroAverage": "micro_average",
        "MinValue": "best_value",
        "ModelSummary": "model_summary",
        "Monitor": "monitor",
        "ParameterHistogram": "parameter_histogram",
        "ParameterStatistics": "parameter_statistics",
        "PlotReport": "plot_report",
        "PrintReport": "print_report",
        "ProgressBar": "progress_bar",
        "SystemMetrics": "system_metrics",
        "VariableStatisticsPlot": "variable_statistics_plot",
        "defaults": "_defaults",
        "export_model": "model_export",
        "observe_lr": "observe",
        "observe_value": "observe",
        "snapshot": "training_snapshot",
        "snapshot_object": "object_snapshot",
    }
    __all__ = sorted(_MODULES)

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
