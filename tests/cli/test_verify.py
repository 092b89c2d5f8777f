"""The command verify and snapshots that are only at a mirror."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._delivery.sync import sync
from tests.cli.invocation import invoke


def train(directory: Path, mirror: Path, epochs: int) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = pte.ExtensionsManager(
        model, epochs, [extensions.snapshot(mirror=str(mirror))], optimizers=optimizer, out_dir=str(directory), sinks=[]
    )
    manager.resume()
    for batch in manager.iterations([torch.ones(1, 1)]):
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a run that was lost after two snapshots and resumed from a mirror."""
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    directory = tmp_path / "result"
    train(directory, tmp_path / "mirror", 2)
    assert sync(directory, timeout=60) == []
    shutil.rmtree(directory)
    train(directory, tmp_path / "mirror", 3)
    assert sync(directory, timeout=60) == []
    return directory


def test_verify_snapshots_at_mirror_after_resume_are_no_problems(resumed: Path) -> None:
    assert not (resumed / "snapshot_iter_1").exists()
    result = invoke("verify", resumed)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{resumed}: only in mirror, not in the run directory: snapshot_iter_1",
        f"{resumed}: no problems found",
    ]
    assert json.loads(invoke("verify", resumed, "--json").stdout) == []
    (line,) = [line for line in invoke("show", resumed).stdout.splitlines() if "snapshot_iter_1" in line]
    assert "no local file" in line


def test_verify_truncated_snapshot_names_both_sizes(tmp_path: Path) -> None:
    saved = extensions.snapshot()
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 1, [saved], iters_per_epoch=1, out_dir=tmp_path, sinks=[])
    for _ in manager.iterations():
        pass
    os.truncate(tmp_path / "snapshot_iter_1", 1000)
    result = invoke("verify", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path}/snapshot_iter_1: truncated: the file has 1,000 bytes, but " in result.stderr


def test_verify_snapshot_that_mirror_lacks_is_missing(resumed: Path) -> None:
    for index in resumed.parent.glob("mirror/*/snapshots/*1-*/index.json"):
        index.unlink()
    result = invoke("verify", resumed)
    assert (result.exit_code, result.stderr) == (1, f"{resumed / 'snapshot_iter_1'}: file not found\n")


def test_verify_unavailable_mirror_is_reported(resumed: Path) -> None:
    shutil.rmtree(resumed.parent / "mirror")
    (resumed.parent / "mirror").write_text("not mounted")
    result = invoke("verify", resumed)
    assert result.exit_code == 1
    unknown, missing = result.stderr.splitlines()
    assert unknown.startswith(f"{resumed}: the snapshots in mirror cannot be listed: ")
    assert missing == f"{resumed / 'snapshot_iter_1'}: file not found"
