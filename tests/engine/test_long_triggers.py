"""Warnings about triggers that do not fire before the training ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.triggers import OnceTrigger, TimeTrigger


def validate(manager: pte.Manager) -> None:
    """Do nothing."""


def train(out: Path, entries: list[Any], **length: Any) -> None:
    """Train epochs of 4 iterations."""
    manager = pte.ExtensionsManager({}, extensions=entries, out_dir=out, sinks=[], **length)
    for _ in manager.iterations(range(4)):
        pass


@pytest.mark.parametrize(
    ("trigger", "length", "is_long"),
    [
        ((3, "epoch"), {"max_epochs": 3}, False),
        ((4, "epoch"), {"max_epochs": 3}, True),
        ((12, "iteration"), {"max_epochs": 3}, False),
        ((13, "iteration"), {"max_epochs": 3}, True),
        ((1, "epoch"), {"max_iterations": 4}, False),
        ((1, "epoch"), {"max_iterations": 3}, True),
        ((2, "epoch"), {"max_epochs": 3, "stop_trigger": (1, "epoch")}, True),
        (TimeTrigger(1000), {"max_epochs": 1}, False),
        (OnceTrigger(), {"max_epochs": 1}, False),
    ],
)
def test_trigger_longer_than_training_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trigger: Any, length: dict[str, Any], is_long: bool
) -> None:
    train(tmp_path, [pte.ExtensionEntry(validate, trigger=trigger)], **length)
    messages = [message for message in caplog.messages if "does not fire in this training" in message]
    assert len(messages) == is_long
    assert all(message.startswith(f"The trigger {trigger} of the extension 'validate'") for message in messages)


def test_long_trigger_of_extension_that_acts_at_the_end_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long: Any = (9, "epoch")
    acting = [extensions.snapshot(trigger=long), extensions.LogReport(trigger=long)]
    train(tmp_path, acting, max_epochs=1)
    assert not caplog.messages


def test_long_trigger_of_snapshot_without_last_state_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, [extensions.snapshot(trigger=(9, "epoch"), at_end=False)], max_epochs=1)
    assert "(9, 'epoch') of the extension 'snapshot' does not fire" in caplog.text
