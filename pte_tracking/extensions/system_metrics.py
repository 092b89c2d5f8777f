"""How busy the machine is, among the reported values."""

from __future__ import annotations

import importlib.util
import resource
import sys
import time

import torch

from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager
from pte_tracking.reporter import report

_MEGABYTE = 1e6


class SystemMetrics(Extension):
    """Reports how much of the processors, of memory and of the GPU is used.

    It runs at the end of each epoch, or when ``extend(..., trigger=)`` says; what is measured over time is
    measured since it ran last. The keys are those of MLflow, which shows them on a page of their own. Always
    reported: ``system/process_cpu_percentage`` (100 for each busy core) and
    ``system/process_memory_peak_megabytes``. With psutil installed: ``system/cpu_utilization_percentage``,
    ``system/system_memory_usage_megabytes`` and ``system/system_memory_usage_percentage`` of the whole
    machine. Of the CUDA device in use, such as the first: ``system/gpu_0_memory_usage_megabytes`` and
    ``system/gpu_0_memory_usage_percentage``, and with nvidia-ml-py installed
    ``system/gpu_0_utilization_percentage``.

    State in snapshots: none.
    """

    trigger = (1, "epoch")
    priority = PRIORITY_WRITER
    default_name = "system_metrics"
    rank_zero_only = True

    def initialize(self, manager: Manager) -> None:
        # The first measurement is since now.
        self._last_times = time.monotonic(), time.process_time()
        _machine_metrics()

    def __call__(self, manager: Manager) -> None:
        wall, cpu = self._last_times
        self._last_times = time.monotonic(), time.process_time()
        report(
            {
                "system/process_cpu_percentage": 100
                * (self._last_times[1] - cpu)
                / max(self._last_times[0] - wall, 1e-9),
                "system/process_memory_peak_megabytes": _peak_memory_bytes() / _MEGABYTE,
                **_machine_metrics(),
                **_gpu_metrics(),
            }
        )


def _peak_memory_bytes() -> int:
    """Bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _machine_metrics() -> dict[str, float]:
    if importlib.util.find_spec("psutil") is None:
        return {}
    import psutil

    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / _MEGABYTE,
        "system/system_memory_usage_percentage": memory.percent,
    }


def _gpu_metrics() -> dict[str, float]:
    # Only the one in use: to ask another would take hundreds of megabytes there.
    if not torch.cuda.is_initialized():
        return {}
    prefix = f"system/gpu_{torch.cuda.current_device()}"
    free, total = torch.cuda.mem_get_info()
    values = {
        f"{prefix}_memory_usage_megabytes": (total - free) / _MEGABYTE,
        f"{prefix}_memory_usage_percentage": 100 * (total - free) / total,
    }
    if importlib.util.find_spec("pynvml"):
        values[f"{prefix}_utilization_percentage"] = torch.cuda.utilization()
    return values
