"""Credentials that the training process changes while a delivery process is running."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pte_tracking as pte
from pte_tracking._delivery.credentials import read_credentials

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_TOKEN",
        "AWS_SESSION_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "API_KEY",
        "APPRISE_URLS",
    ],
)
def test_read_credentials_contains_secret_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_credentials()
    monkeypatch.setenv(name, "a secret of this test")
    assert read_credentials() != before


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES", "KEYBOARD", "MLFLOW_RUN_ID"])
def test_read_credentials_omits_other_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_credentials()
    monkeypatch.setenv(name, "a value of this test")
    assert read_credentials() == before


@pytest.mark.slow
def test_changed_token_replaces_delivery_process(
    tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pte.Run(tmp_path / "run", sinks=[probe.sink()], close_timeout=30) as run:
        deadline = time.monotonic() + 60
        step = 0
        for token in ("first", "second"):
            monkeypatch.setenv("SERVICE_TOKEN", token)
            processes = {note["pid"] for note in probe.notes("open")}
            while {note["pid"] for note in probe.notes("open")} <= processes and time.monotonic() < deadline:
                step += 1
                run.log_metrics({"a": 1.0}, step)
                time.sleep(0.1)
    assert len({note["pid"] for note in probe.notes("open")}) == 2
    assert probe.points() == [("a", number, 1.0) for number in range(1, step + 1)]
    assert "the delivery process ended" not in caplog.text
