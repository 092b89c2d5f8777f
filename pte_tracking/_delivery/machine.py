"""Metrics of a machine and of the training processes on it, by the names that MLflow shows as system metrics."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_MEGABYTE = 1e6
_MILLIWATTS = 1000.0


class Machine:
    """Metrics of this machine, its GPUs, and the processes of a training. Requires psutil.

    Amounts of data that were transferred count from the construction. CPU usage is that since the last call.

    Args:
        directory: Directory whose file system is measured.
        pids: IDs of the processes whose trees are measured.

    Raises:
        ImportError: If psutil is not installed.
    """

    def __init__(self, directory: Path, pids: Sequence[int]) -> None:
        import psutil

        self._psutil: Any = psutil
        self._directory = directory
        self._pids = pids
        self._gpus = Gpus()
        #: Processor time of each living process of the training, in seconds.
        self._cpu_times: dict[Any, float] = {}
        self._read_time = time.monotonic()
        self._transferred = self._read_transferred()
        psutil.cpu_percent()  # the first call returns 0
        self._read_processes()

    def read(self) -> dict[str, float]:
        """Return the current metrics by name, without those that this machine does not report."""
        memory, disk = self._psutil.virtual_memory(), self._psutil.disk_usage(str(self._directory))
        before = self._transferred
        return {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system_memory_usage_percentage": 100 * memory.used / memory.total,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / _MEGABYTE,
            "disk_available_megabytes": disk.free / _MEGABYTE,
            **{key: (count - before.get(key, 0)) / _MEGABYTE for key, count in self._read_transferred().items()},
            **self._read_processes(),
            **self._gpus.read(),
        }

    def _read_transferred(self) -> dict[str, int]:
        """Return the transferred bytes since the machine started. Containers may not report them."""
        counts: dict[str, int] = {}
        with contextlib.suppress(OSError, NotImplementedError):
            if network := self._psutil.net_io_counters():
                counts["network_receive_megabytes"] = network.bytes_recv
                counts["network_transmit_megabytes"] = network.bytes_sent
        with contextlib.suppress(OSError, NotImplementedError):
            if disk := self._psutil.disk_io_counters():
                counts["disk_read_megabytes"] = disk.read_bytes
                counts["disk_write_megabytes"] = disk.write_bytes
        return counts

    def _read_processes(self) -> dict[str, float]:
        cpu_times, memory_bytes = {}, 0
        for process in self._find_processes():
            with contextlib.suppress(self._psutil.Error):  # it has ended
                times = process.cpu_times()
                cpu_times[process] = times.user + times.system
                memory_bytes += process.memory_info().rss
        # A process that is new has used its processor time since the last call.
        seconds = sum(seconds - self._cpu_times.get(process, 0.0) for process, seconds in cpu_times.items())
        before, self._read_time = self._read_time, time.monotonic()
        self._cpu_times = cpu_times
        return {
            "process_cpu_percentage": 100 * seconds / max(self._read_time - before, 1e-9),
            "process_memory_megabytes": memory_bytes / _MEGABYTE,
            "process_count": len(cpu_times),
        }

    def _find_processes(self) -> Iterable[Any]:
        """Return the processes of the training and their descendants, without this process."""
        found: dict[Any, None] = {}
        for pid in self._pids:
            with contextlib.suppress(self._psutil.Error):
                process = self._psutil.Process(pid)
                found |= dict.fromkeys([process, *process.children(recursive=True)])
        return [process for process in found if process.pid != os.getpid()]


class Gpus:
    """All GPUs of NVIDIA in this machine, in the order of its driver. None without nvidia-ml-py or without a driver."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        try:
            import pynvml
        except ImportError:
            return
        self._nvml: Any = pynvml
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]

    def read(self) -> dict[str, float]:
        """Return the metrics of each GPU, without those that it does not report."""
        values: dict[str, float] = {}
        for index, handle in enumerate(self._handles):
            prefix = f"gpu_{index}"
            with contextlib.suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                values[f"{prefix}_memory_usage_percentage"] = 100 * memory.used / memory.total
                values[f"{prefix}_memory_usage_megabytes"] = memory.used / _MEGABYTE
            with contextlib.suppress(self._nvml.NVMLError):
                rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
                values[f"{prefix}_utilization_percentage"] = rates.gpu
            with contextlib.suppress(self._nvml.NVMLError):
                power = self._nvml.nvmlDeviceGetPowerUsage(handle)
                values[f"{prefix}_power_usage_watts"] = power / _MILLIWATTS
                limit = self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle)
                values[f"{prefix}_power_usage_percentage"] = 100 * power / limit
        return values
