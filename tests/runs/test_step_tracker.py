"""Metrics whose steps go back."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking import extensions


@pytest.fixture(autouse=True)
def capture(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pte_tracking")


def test_step_that_goes_back_is_reported_once_with_key_and_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pte.Run(tmp_path) as run:
        for _ in range(3):
            for step in range(1, 6):
                run.log_metrics({"rate": 0.5, "loss": 1.0} if step % 2 else {"loss": 1.0}, step)
    (message,) = caplog.messages
    assert message.startswith("'rate' was logged at step 1 after step 5. ")


def test_step_that_goes_back_in_row_with_other_keys_names_right_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"loss": 1.0, "acc": 0.5}, 4)
        run.log_metrics({"loss": 1.0}, 9)
        run.log_metrics({"new": 1.0, "acc": 0.5}, 7)
        assert caplog.messages == []
        run.log_metrics({"newer": 1.0, "acc": 0.5}, 6)
    assert [message.partition(".")[0] for message in caplog.messages] == ["'acc' was logged at step 6 after step 7"]


def test_lower_steps_of_other_metrics_and_logs_are_not_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pte.Run(tmp_path) as run:
        for step in range(1, 2000):
            run.log_metrics({"train/loss": 1.0}, step)
        run.log_metrics({"test/accuracy": 0.9}, 7)
        run.log_metrics({"test/accuracy": 0.9}, 7)
        run.log_metrics({"train/loss": 1.0}, 1000, log="other")
        run.log_text("note", "text")
    assert caplog.messages == []


def test_resumed_training_is_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for stop in (7, 10):
        parts = [extensions.LogReport(trigger=(1, "iteration")), extensions.snapshot(trigger=(4, "iteration"))]
        manager = pte.ExtensionsManager({}, stop, parts, iters_per_epoch=1, out_dir=tmp_path)
        manager.resume()
        while not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"loss": 1.0})
        manager.close()
    assert not [message for message in caplog.messages if "was logged at step" in message]


def test_step_that_goes_back_is_printed_by_script(tmp_path: Path) -> None:
    script = """
import pte_tracking as pte
run = pte.Run("run")
run.log_metrics({"loss": 1.0}, 2)
run.log_metrics({"loss": 1.0}, 1)
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stderr.count("'loss' was logged at step 1 after step 2") == 1
