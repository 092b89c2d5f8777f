"""Usage of CPU, memory, and GPU as reported values."""

from __future__ import annotations

import importlib.util
import time

import torch

from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager
from pte_tracking._platform.processes import peak_memory_bytes
from pte_tracking.reporter import report

_MEGABYTE = 1e6


class SystemMetrics(Extension):
    """Extension that reports the usage of CPU, memory, and GPU.

    The extension runs at the end of each epoch, or according to ``extend(..., trigger=...)``, on rank 0. Rates are
    measured since its last run. MLflow shows these keys on its system metrics page:

    - ``system/process_cpu_percentage``: CPU usage of the process, 100 for each fully used core
    - ``system/process_memory_peak_megabytes``: peak memory usage of the process (not on Windows)
    - ``system/cpu_utilization_percentage``: CPU usage of the machine (requires psutil)
    - ``system/system_memory_usage_megabytes``: memory usage of the machine (requires psutil)
    - ``system/system_memory_usage_percentage``: memory usage of the machine (requires psutil)
    - ``system/gpu_0_memory_usage_megabytes``: memory usage of the current CUDA device, here device 0
    - ``system/gpu_0_memory_usage_percentage``: memory usage of the current CUDA device
    - ``system/gpu_0_utilization_percentage``: usage of the current CUDA device (requires nvidia-ml-py)

    Snapshots contain no state of the extension.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> with pte.ExtensionsManager(
        ...     {}, 1, [extensions.SystemMetrics()], iters_per_epoch=1, sinks=[]
        ... ) as manager:
        ...     with manager.run_iteration():
        ...         pass
        >>> manager.observation["system/process_memory_peak_megabytes"] > 0
        True
    """

    trigger = (1, "epoch")
    priority = PRIORITY_WRITER
    default_name = "system_metrics"
    rank_zero_only = True

    def initialize(self, manager: Manager) -> None:
        # The first call measures from this point.
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
                **_peak_memory_metrics(),
                **_machine_metrics(),
                **_gpu_metrics(),
            }
        )


def _peak_memory_metrics() -> dict[str, float]:
    peak = peak_memory_bytes()
    return {} if peak is None else {"system/process_memory_peak_megabytes": peak / _MEGABYTE}


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
    # A query of another device would allocate hundreds of megabytes on it.
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
