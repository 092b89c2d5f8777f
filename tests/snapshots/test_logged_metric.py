"""``keep_best`` with a metric that the loop logs with ``run.log_metrics()``, or that it reports at other steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

SCORES = {2: 0.5, 4: 0.9, 6: 0.7}
BEST = ("score", "max", 1)


def train(out: Path, log: Callable[[pte.ExtensionsManager], None], keep_best: Any = BEST, **options: Any) -> pte.Run:
    """Train 6 iterations with a snapshot after every second one. Call a function in the body of the loop."""
    saved = extensions.snapshot(trigger=(2, "iteration"), n_retains=1, keep_best=keep_best, **options)
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 1, [saved], out_dir=out, sinks=["json"])
    for _ in manager.iterations(range(6)):
        log(manager)
    log(manager)  # the evaluation of the last state
    manager.close()
    return manager.run


def checkpoints(run: pte.Run) -> dict[int, Any]:
    return {item.step: item.values.get("score") for item in run.checkpoints()}


def evaluate_completed(manager: pte.ExtensionsManager) -> None:
    """Evaluate the state of the last iteration, whose snapshot is saved, in the body of the next one."""
    if manager.iteration in SCORES:
        manager.run.log_metrics({"score": SCORES[manager.iteration]}, manager.iteration)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_value_logged_after_snapshot_counts_for_snapshot_of_its_step(tmp_path: Path, asynchronous: bool) -> None:
    run = train(tmp_path, evaluate_completed, asynchronous=asynchronous)
    assert checkpoints(run) == {4: 0.9, 6: None}  # the run had ended before the last value
    assert pte.load(tmp_path, "best").step == 4
    assert pte.load(tmp_path, "best").values["score"] == 0.9


def test_value_logged_before_close_counts_for_last_snapshot(tmp_path: Path) -> None:
    saved = extensions.snapshot(trigger=(2, "iteration"), n_retains=1, keep_best=BEST, asynchronous=False)
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 1, [saved], out_dir=tmp_path, iters_per_epoch=7, sinks=[])
    for iteration in range(1, 7):
        with manager.run_iteration():
            pass
        if iteration == 6:
            assert checkpoints(manager.run) == {4: 0.9, 6: None}  # saves the state
        evaluate_completed(manager)
    manager.run.log_metrics({"score": 1.0}, 6)
    manager.close()
    assert checkpoints(manager.run) == {6: 1.0}


def test_value_logged_at_step_of_open_iteration_counts_for_its_snapshot(tmp_path: Path) -> None:
    def log(manager: pte.ExtensionsManager) -> None:
        if manager.iteration + 1 in SCORES:
            manager.run.log_metrics({"score": SCORES[manager.iteration + 1]}, manager.iteration)

    assert checkpoints(train(tmp_path, log)) == {4: 0.9, 6: 0.7}


def test_value_of_earlier_snapshot_does_not_count_again(tmp_path: Path) -> None:
    def log(manager: pte.ExtensionsManager) -> None:
        if manager.iteration == 2:
            manager.run.log_metrics({"score": 0.5}, 2)

    assert checkpoints(train(tmp_path, log, ("score", "max", 3))) == {2: 0.5, 6: None}


def test_value_at_step_before_earlier_snapshot_counts_for_next_and_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def log(manager: pte.ExtensionsManager) -> None:
        if manager.iteration + 1 in SCORES:  # the number of an epoch, and not of an iteration
            manager.run.log_metrics({"score": SCORES[manager.iteration + 1]}, (manager.iteration + 1) // 2 - 1)

    with caplog.at_level(logging.WARNING, "pte_tracking"):
        assert checkpoints(train(tmp_path, log)) == {4: 0.9, 6: 0.7}
    (message,) = (text for text in caplog.messages if "keep_best" in text)
    assert message.startswith("snapshot: keep_best: 'score' was logged at step 1, before the snapshot at step 2, but")
    assert "counts for the one at step 4" in message


@pytest.mark.parametrize(("period", "is_expected"), [(2, False), (3, True), (4, False)], ids=["same", "other", "rarer"])
def test_value_reported_in_other_iteration_than_snapshot_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, period: int, is_expected: bool
) -> None:
    @pte.make_extension(trigger=(2, "iteration"))
    def evaluate(manager: Any) -> None:
        pte.report({"score": manager.iteration})

    saved = extensions.snapshot(trigger=(period, "iteration"), keep_best=BEST)
    manager = pte.ExtensionsManager({}, max_iterations=12, extensions=[evaluate, saved], out_dir=tmp_path, sinks=[])
    for _ in manager.iterations():
        pass
    warning = (
        "keep_best: the snapshot of iteration 3 is ranked by 'score' of iteration 2, when the model had other weights"
    )
    assert caplog.text.count(warning) == is_expected
    assert ("keep_best" in caplog.text) is is_expected


def test_value_reported_in_each_iteration_or_before_last_snapshot_does_not_warn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = extensions.snapshot(trigger=(3, "iteration"), keep_best=BEST)
    manager = pte.ExtensionsManager({}, max_iterations=7, extensions=[saved], out_dir=tmp_path, sinks=[])
    for iteration in manager.iterations():
        if iteration != 6:
            pte.report({"score": iteration})
    assert [item.step for item in manager.run.checkpoints()] == [6, 7]
    assert not caplog.messages
