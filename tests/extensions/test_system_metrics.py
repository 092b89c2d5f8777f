"""Request of SystemMetrics, which the delivery process fulfills."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pytest

from pte_tracking import ExtensionsManager
from pte_tracking._store.manifest import Manifest, Sampling
from pte_tracking.extensions import SystemMetrics


def train(out: Path, interval: float = 10) -> None:
    with ExtensionsManager({}, 1, [SystemMetrics(interval)], iters_per_epoch=1, out_dir=out, sinks=[]) as manager:
        with manager.run_iteration():
            pass
        assert not manager.observation


def test_system_metrics_training_requests_samples_in_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    train(tmp_path, interval=2)
    manifest = Manifest.load(tmp_path)
    assert manifest.sampling == Sampling(2.0, [os.getpid()])
    assert "system-*.jsonl" in manifest.files
    assert not [*tmp_path.glob("system-*")]


def test_system_metrics_missing_psutil_names_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "psutil":
            raise ModuleNotFoundError(name)
        return import_module(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'pte-tracking\[monitor\]'"):
        SystemMetrics()


@pytest.mark.parametrize(
    ("interval", "error"), [("10", TypeError), (True, TypeError), (0, ValueError), (float("nan"), ValueError)]
)
def test_system_metrics_invalid_interval_is_refused(interval: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="interval"):
        SystemMetrics(interval)
