"""Old names and errors of the migration guides."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, updaters
from tests.needs import check_requirement

ROOT = Path(__file__).parent.parent
GUIDES = [ROOT / "docs" / "migration.md", ROOT / "examples" / "migrate_from_ppe.md"]


def rows(header: str) -> list[tuple[str, ...]]:
    """Return the first two cells, without backticks, of the rows of all tables with a header."""
    cells: list[tuple[str, ...]] = []
    for guide in GUIDES:
        for table in re.findall(r"^\|[^\n]*\|\n\|[-|]+\|\n(?:\|[^\n]*\|\n)+", guide.read_text(), re.MULTILINE):
            first, _, *body = table.splitlines()
            if header in first:
                cells += [tuple(cell.strip().strip("`") for cell in line.split("|")[1:3]) for line in body]
    return cells


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Objects that the rows use, under their names."""
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.target = model  # type: ignore[attr-defined]
    loader = [torch.ones(1, 1)]
    updater = updaters.StandardUpdater(loader, optimizer, loss_func=lambda x: model(x).sum())
    trainer = pte.Trainer(updater, (1, "epoch"))
    return {
        "pte": pte,
        "extensions": extensions,
        "updaters": updaters,
        "torch": torch,
        "ExtensionsManager": pte.ExtensionsManager,
        "Trainer": pte.Trainer,
        "StandardUpdater": updaters.StandardUpdater,
        "model": model,
        "optimizer": optimizer,
        "loader": loader,
        "updater": updater,
        "trainer": trainer,
        "manager": trainer.manager,
        "writer": object(),
        "convert": print,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1),
    }


@pytest.mark.parametrize("code", [code for code, _ in rows("| Name in this package |")])
def test_accepted_spelling_is_accepted(code: str, names: dict[str, Any]) -> None:
    eval(code, names)


@pytest.mark.parametrize(("code", "error"), rows("| Error |"))
def test_old_name_raises_documented_error(code: str, error: str, names: dict[str, Any]) -> None:
    if "engine" in code:
        try:
            from ignite.engine import Engine
        except ImportError:
            check_requirement("Requires Ignite. Run: pip install pytorch-ignite")
        names |= {"engine": Engine(print), "IgniteExtensionsManager": pte.IgniteExtensionsManager}
    with pytest.raises((TypeError, ValueError, AttributeError)) as result:
        eval(code, names)
    actual = f"{result.type.__name__}: {result.value}"
    assert doctest.OutputChecker().check_output(error, actual, doctest.ELLIPSIS), actual


def test_guides_contain_tables() -> None:
    assert len(rows("| Error |")) > 35
    assert len(rows("| Name in this package |")) > 8
