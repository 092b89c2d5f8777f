"""Parameters that change at a resume, in ``show`` and ``compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from tests.cli.invocation import invoke


def train(out: Path, epochs: int, params: dict[str, Any]) -> None:
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), epochs, [extensions.snapshot()], out_dir=out, sinks=["json"], params=params
    )
    manager.resume()
    for _ in manager.iterations(range(2)):
        pass


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    for epochs, rate in enumerate((0.01, 0.05, 0.05, 1.0), 1):
        train(tmp_path / "changed", epochs, {"lr": rate, "name": "a"})
    return tmp_path / "changed"


def test_show_prints_value_of_parameter_before_a_resume(changed: Path) -> None:
    lines = [" ".join(line.split()) for line in invoke("show", changed).output.splitlines()]
    assert "lr 1 (before a resume: 0.01, 0.05)" in lines
    assert "name a" in lines
    shown = json.loads(invoke("show", changed, "--json").output)
    assert (shown["params"], shown["earlier_params"]) == ({"lr": 1.0, "name": "a"}, {"lr": [0.01, 0.05]})


def test_compare_lists_parameter_that_a_resume_changed_to_the_same_value(changed: Path) -> None:
    other = changed.with_name("other")
    train(other, 1, {"lr": 1.0, "name": "a"})
    output = invoke("compare", changed, other).output
    assert "Parameters that differ" in output
    assert "1 (before a resume: 0.01, 0.05)" in " ".join(output.split())
    compared = json.loads(invoke("compare", changed, other, "--json").output)
    assert compared["params"] == {"lr": {str(changed): 1.0, str(other): 1.0}}
    assert compared["earlier_params"] == {str(changed): {"lr": [0.01, 0.05]}}
