"""Versions and devices in a snapshot, and the report of a resume with others."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._distributed.world import SINGLE_PROCESS
from pte_tracking._engine.environment import describe_environment, report_differences


def make(directory: Path) -> pte.ExtensionsManager:
    options: Any = {"iters_per_epoch": 2, "out_dir": directory, "sinks": []}
    return pte.ExtensionsManager(nn.Linear(1, 1), 2, [extensions.snapshot()], **options)


def train(directory: Path) -> dict[str, Any]:
    manager = make(directory)
    for _ in range(2):
        with manager.run_iteration():
            pass
    manager.close()
    state: dict[str, Any] = torch.load(directory / "snapshot_iter_2")
    return state


def test_snapshot_contains_versions_and_devices(tmp_path: Path) -> None:
    assert train(tmp_path)["environment"] == {
        "torch": str(torch.__version__),
        "CUDA": torch.version.cuda or "none",
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "pte-tracking": pte.__version__,
        "device": "CPU",
        "weights": "float32",
        "ranks": "1",
    }


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("torch", "1.0.0", f"torch 1.0.0, now {torch.__version__}"),
        ("CUDA", "11.8", f"CUDA 11.8, now {torch.version.cuda or 'none'}"),
        ("Python", "3.1", f"Python 3.1, now {sys.version_info.major}.{sys.version_info.minor}"),
        ("pte-tracking", "0.0.1", f"pte-tracking 0.0.1, now {pte.__version__}"),
        ("device", "CUDA (NVIDIA H200)", "device CUDA (NVIDIA H200), now CPU"),
        ("weights", "bfloat16", "weights bfloat16, now float32"),
        ("ranks", "4", "ranks 4, now 1"),
    ],
)
def test_resume_in_another_environment_reports_it_in_one_line(
    tmp_path: Path, caplog: Any, name: str, value: str, expected: str
) -> None:
    state = train(tmp_path)
    state["environment"][name] = value
    with caplog.at_level(logging.WARNING):
        make(tmp_path / "other").load_state_dict(state)
    messages = [message for message in caplog.messages if message.startswith("The snapshot was saved with")]
    assert len(messages) == 1
    assert (
        f"The snapshot was saved with {expected}. The training continues, but possibly not bit for bit" in messages[0]
    )


def test_resume_in_the_same_environment_reports_nothing(tmp_path: Path, caplog: Any) -> None:
    train(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert make(tmp_path).resume()
        report_differences({}, describe_environment([], SINGLE_PROCESS))
    assert caplog.messages == []


def test_resume_with_several_other_versions_reports_them_once_until_the_next_snapshot(
    tmp_path: Path, caplog: Any
) -> None:
    state = train(tmp_path)
    state["environment"] |= {"torch": "1.0.0", "CUDA": "11.8", "device": "CUDA (NVIDIA H200)"}
    with caplog.at_level(logging.WARNING):
        first = make(tmp_path / "other")
        first.max_epochs = 4
        first.load_state_dict(state)
        for _ in range(2):
            with first.run_iteration():
                pass
        first.close()
        assert make(tmp_path / "other").resume()
    (message,) = [text for text in caplog.messages if "was saved with" in text]
    assert f"torch 1.0.0, now {torch.__version__}; CUDA 11.8, now " in message
    assert "device CUDA (NVIDIA H200), now CPU" in message
