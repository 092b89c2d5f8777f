"""Warnings about values that an extension reports after the LogReports ran."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

EVERY_EPOCH = pte.make_extension(trigger=(1, "epoch"))


def report_value(manager: pte.Manager) -> None:
    pte.report({"late/x": float(manager.iteration)})


def train(out: Path, *entries: Any) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with pte.ExtensionsManager(model, 3, entries, optimizers=optimizer, iters_per_epoch=4, out_dir=out) as manager:
        for _ in manager.batches(range(4)):
            with manager.run_iteration():
                pte.report({"loss": 1.0})


def count_messages(caplog: pytest.LogCaptureFixture, key: str) -> int:
    return sum(repr(key) in message and "not recorded" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(lambda: report_value, id="each iteration"),
        pytest.param(lambda: EVERY_EPOCH(report_value), id="each epoch"),
        pytest.param(lambda: pte.ExtensionEntry(report_value, priority=-200), id="after snapshots"),
        pytest.param(
            lambda: pte.ExtensionEntry(extensions.observe_value("late/x", lambda manager: 1.0), priority=0),
            id="observe_value",
        ),
        pytest.param(lambda: pte.ExtensionEntry(report_value, call_before_training=True), id="before training"),
    ],
)
@pytest.mark.parametrize("is_owned", [False, True])
def test_value_reported_after_log_report_warns_once(
    is_owned: bool, late: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = extensions.LogReport()
    log = extensions.PrintReport(log_report=report, out=io.StringIO()) if is_owned else report
    train(tmp_path, log, late())
    assert count_messages(caplog, "late/x") == 1
    assert not any("late/x" in row for row in report.log)


def test_value_reported_before_a_log_report_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, last = extensions.LogReport(), extensions.LogReport(trigger=(1, "iteration"))
    train(tmp_path, first, report_value, last)
    assert count_messages(caplog, "late/x") == 0
    assert len([row for row in last.log if "late/x" in row]) == 12


def test_value_that_no_log_report_selects_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, extensions.LogReport("loss"), report_value)
    assert count_messages(caplog, "late/x") == 0
