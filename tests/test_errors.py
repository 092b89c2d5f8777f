"""Errors of wrong usage, as docs/errors.md lists them."""

from __future__ import annotations

import doctest
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, triggers, updaters

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"
ROWS = re.findall(r"^\| `(.+?)` \| `(.+)` \|$", PAGE.read_text(), re.MULTILINE)


def run_two_iterations_at_once(manager: pte.ExtensionsManager) -> None:
    with manager.run_iteration(), manager.run_iteration():
        pass


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Objects that the rows use, under their names."""
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(2, 1)
    return {
        "pte": pte,
        "ExtensionsManager": pte.ExtensionsManager,
        "Trainer": pte.Trainer,
        "IgniteExtensionsManager": pte.IgniteExtensionsManager,
        "extensions": extensions,
        "triggers": triggers,
        "StandardUpdater": updaters.StandardUpdater,
        "nn": nn,
        "torch": torch,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "manager": pte.ExtensionsManager(model, 1, out_dir="manager"),
        "run": pte.Run("run"),
        "run_two_iterations_at_once": partial(run_two_iterations_at_once),
    }


@pytest.mark.parametrize(("code", "error"), ROWS)
def test_wrong_usage_raises_documented_error(code: str, error: str, names: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, LookupError, OSError, RuntimeError)) as result:
        eval(code, names)
    actual = f"{result.type.__name__}: {result.value}"
    assert doctest.OutputChecker().check_output(error, actual, doctest.ELLIPSIS), actual


def test_page_lists_at_least_fifty_errors() -> None:
    assert len(ROWS) >= 50
