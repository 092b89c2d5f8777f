"""Metrics of the machine and of the training processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pte_tracking._delivery.machine import Gpus, Machine

#: Names that MLflow itself logs.
MLFLOW_NAMES = {
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
    "disk_usage_percentage",
    "disk_usage_megabytes",
    "disk_available_megabytes",
    "network_receive_megabytes",
    "network_transmit_megabytes",
}


def test_machine_process_tree_is_measured_with_descendants(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()']); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as training:
        assert training.stdout
        training.stdout.readline()
        metrics = Machine(tmp_path, [training.pid]).read()
        training.kill()
    assert metrics.keys() >= MLFLOW_NAMES
    assert metrics["process_count"] == 2
    assert metrics["process_memory_megabytes"] > 1
    assert 0 < metrics["disk_usage_percentage"] <= 100


def test_machine_ended_process_is_not_counted(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as training:
        pass
    assert Machine(tmp_path, [training.pid]).read()["process_count"] == 0


def test_machine_container_without_counters_reports_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: None)
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)
    metrics = Machine(tmp_path, [1]).read()
    assert "cpu_utilization_percentage" in metrics
    assert not [key for key in metrics if key.startswith("network_")]


class NVMLError(Exception):
    pass


def make_nvml(**functions: Any) -> SimpleNamespace:
    """Return a replacement of the module, because the tests have no GPU."""

    def unsupported(*_: object) -> None:
        raise NVMLError

    default = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=2e9 * (gpu + 1), total=8e9),
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=50 + gpu),
        "nvmlDeviceGetPowerUsage": unsupported,
    }
    return SimpleNamespace(NVMLError=NVMLError, **{**default, **functions})


def test_gpus_unsupported_power_reports_the_rest_of_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", make_nvml())
    assert Gpus().read() == {
        "gpu_0_memory_usage_percentage": 25,
        "gpu_0_memory_usage_megabytes": 2000,
        "gpu_0_utilization_percentage": 50,
        "gpu_1_memory_usage_percentage": 50,
        "gpu_1_memory_usage_megabytes": 4000,
        "gpu_1_utilization_percentage": 51,
    }


def test_gpus_missing_driver_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_missing() -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", make_nvml(nvmlInit=raise_missing))
    assert Gpus().read() == {}
