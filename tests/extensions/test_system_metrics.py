"""Tests of SystemMetrics with and without psutil."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from pte_tracking import ExtensionsManager
from pte_tracking.extensions import SystemMetrics

PROCESS_KEYS = {"system/process_cpu_percentage", "system/process_memory_peak_megabytes"}
MACHINE_KEYS = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
}


def observe(out: Path, work: float = 0) -> Mapping[str, Any]:
    with ExtensionsManager({}, 1, [SystemMetrics()], iters_per_epoch=1, out_dir=out, sinks=[]) as manager:
        with manager.run_iteration():
            until = time.process_time() + work
            while time.process_time() < until:
                pass
        return manager.observation


def test_system_metrics_report_process_and_machine(tmp_path: Path) -> None:
    observed = observe(tmp_path, work=0.05)
    assert set(observed) >= PROCESS_KEYS | MACHINE_KEYS
    assert observed["system/process_cpu_percentage"] > 1
    assert observed["system/process_memory_peak_megabytes"] > 10
    assert 0 <= observed["system/cpu_utilization_percentage"] <= 100
    assert 0 < observed["system/system_memory_usage_percentage"] <= 100


def test_system_metrics_missing_psutil_reports_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "psutil" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert set(observe(tmp_path)) == PROCESS_KEYS
