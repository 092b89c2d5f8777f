"""States loaded into a manager with another run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions


def make_manager(out: Path, epochs: int, **options: Any) -> pte.ExtensionsManager:
    snapshot = extensions.snapshot(trigger=(3, "iteration"))
    return pte.ExtensionsManager(
        nn.Linear(1, 1), epochs, [extensions.LogReport(), snapshot], iters_per_epoch=4, out_dir=out, **options
    )


def train(manager: pte.ExtensionsManager, value: float) -> None:
    for _ in manager.batches(range(4)):
        with manager.run_iteration():
            pte.report({"x": value})


def rows(manager: pte.ExtensionsManager) -> list[tuple[int, float]]:
    return [(row.step, float(row.values["x"])) for row in manager.run.rows()]


def test_fork_in_the_middle_of_an_interval_continues_the_mean(tmp_path: Path) -> None:
    parent = make_manager(tmp_path / "parent", 3)
    train(parent, 1.0)
    fork = make_manager(tmp_path / "fork", 3)
    fork.load_state_dict(torch.load(tmp_path / "parent" / "snapshot_iter_6"))
    train(fork, 3.0)
    assert rows(fork) == [(4, 1.0), (8, 2.0), (12, 3.0)]
    assert rows(parent) == [(4, 1.0), (8, 1.0), (12, 1.0)]
    assert fork.run.id != parent.run.id
    assert [checkpoint.step for checkpoint in fork.run.checkpoints()] == [9, 12]


def test_fork_resumes_as_its_own_run(tmp_path: Path) -> None:
    train(make_manager(tmp_path / "parent", 2), 1.0)
    fork = make_manager(tmp_path / "fork", 3)
    fork.load_state_dict(torch.load(tmp_path / "parent" / "snapshot_iter_6"))
    train(fork, 3.0)
    resumed = make_manager(tmp_path / "fork", 4)
    assert resumed.resume() is not None
    train(resumed, 5.0)
    assert resumed.run.id == fork.run.id
    assert rows(resumed) == [(4, 1.0), (8, 2.0), (12, 3.0), (16, 5.0)]


def test_state_of_the_same_directory_continues_its_run(tmp_path: Path) -> None:
    first = make_manager(tmp_path, 2)
    train(first, 1.0)
    second = make_manager(tmp_path, 2)
    second.load_state_dict(torch.load(tmp_path / "snapshot_iter_6"))
    train(second, 3.0)
    assert second.run.id == first.run.id
    assert rows(second) == [(4, 1.0), (8, 2.0)]


def test_resume_of_a_path_continues_the_same_run_elsewhere(tmp_path: Path) -> None:
    first = make_manager(tmp_path / "first", 2)
    train(first, 1.0)
    second = make_manager(tmp_path / "second", 2)
    second.resume(tmp_path / "first" / "snapshot_iter_6")
    train(second, 3.0)
    assert second.run.id == first.run.id
    assert rows(second) == [(4, 1.0), (8, 2.0)]
