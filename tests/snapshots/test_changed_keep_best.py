"""A resume with another ``keep_best`` than before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

LOSSES = {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3, 5: 0.6, 6: 0.7, 7: 0.05, 8: 0.9, 9: 0.8}


def train(out: Path, iterations: int, keep_best: Any, n_retains: int = 1, key: str = "score") -> list[int]:
    """Resume and train with a snapshot in each iteration. Return the steps of the remaining snapshots."""
    saved = extensions.snapshot(trigger=(1, "iteration"), n_retains=n_retains, keep_best=keep_best)
    manager = pte.ExtensionsManager(
        nn.Linear(1, 1), max_iterations=iterations, extensions=[saved], out_dir=out, sinks=[]
    )
    manager.resume()
    for _ in manager.iterations():
        step = manager.iteration + 1
        pte.report({"loss": LOSSES[step], key: step})
    steps = [checkpoint.step for checkpoint in manager.run.checkpoints()]
    assert steps == sorted(int(path.name.rpartition("_")[2]) for path in out.glob("snapshot_iter_*"))
    return steps


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (("score", "max", 1), [2, 6]),
        (("score", "min", 1), [2, 5, 6]),  # 3 was pruned, and 2 and 4 have no value of the metric
        (("lost", "min", 1), [2, 6]),
        (("loss", "max", 1), [2, 6]),
        (None, [2, 6]),
    ],
    ids=["metric", "other mode", "typo", "mode", "removed"],
)
@pytest.mark.parametrize("iterations", [2, 4], ids=["best is newest", "best is older"])
def test_resume_with_other_keep_best_keeps_the_earlier_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: Any, expected: list[int], iterations: int
) -> None:
    train(tmp_path, iterations, ("loss", "min", 1), key="other")
    assert train(tmp_path, 6, changed)[:1] == [2]
    assert (
        "snapshot_iter_2 is the best by 'loss', the metric of keep_best before the resume, and is kept" in caplog.text
    )
    assert pte.load(tmp_path, "best", best=("loss", "min")).step == 2
    if iterations == 4:
        assert train(tmp_path, 6, changed) == expected


def test_earlier_best_is_replaced_by_a_better_one_at_a_later_resume(tmp_path: Path) -> None:
    train(tmp_path, 4, ("loss", "min", 1))
    assert train(tmp_path, 7, ("score", "max", 1)) == [2, 7]
    assert train(tmp_path, 9, ("score", "max", 1)) == [7, 9]


def test_resume_with_the_first_keep_best_again_keeps_the_best_of_both(tmp_path: Path) -> None:
    train(tmp_path, 4, ("loss", "min", 1))
    train(tmp_path, 5, ("score", "max", 1))
    assert train(tmp_path, 6, ("loss", "min", 1)) == [2, 5, 6]
    assert train(tmp_path, 8, ("loss", "min", 1)) == [6, 7, 8]


def test_resume_with_equal_keep_best_logs_nothing_about_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, 4, ("loss", "min", 1))
    assert train(tmp_path, 6, ("loss", "min", 1)) == [2, 6]
    assert train(tmp_path, 7, ("loss", "min", 2)) == [2, 7]
    assert "keep_best" not in caplog.text


def test_keep_best_added_at_a_resume_ranks_the_new_snapshots(tmp_path: Path) -> None:
    train(tmp_path, 2, None)
    assert train(tmp_path, 6, ("loss", "min", 1)) == [2, 6]
