"""Epochs that ``engine.terminate_epoch()`` ends early: counted by the manager, and resumed exactly."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import DataLoader

import pte_tracking as pte
from pte_tracking import extensions

ITERATIONS = 10  # of three epochs of 4, the second of which ends after 2


class Stop(BaseException):
    """Ends the training within an iteration, as a crash does."""


def train(folder: Path, stop: int | None = None, *, skip: bool = False, resume: bool = False) -> list[Any]:
    torch.manual_seed(0)
    seen: list[Any] = []

    def step(engine: Engine, batch: Any) -> None:
        if len(seen) == stop:
            raise Stop
        seen.append((engine.state.epoch, engine.state.iteration, batch.tolist()))

    def end_epoch(engine: Engine) -> None:
        if engine.state.iteration == 6:
            engine.terminate_epoch(skip_epoch_completed=skip)

    engine = Engine(step)
    manager = pte.IgniteExtensionsManager(
        engine,
        nn.Linear(1, 1),
        3,
        [extensions.snapshot(trigger=(1, "iteration")), extensions.LogReport(trigger=(1, "epoch"))],
        out_dir=folder,
    )
    engine.add_event_handler(Events.ITERATION_COMPLETED, end_epoch)
    if resume:
        manager.resume()
    with contextlib.suppress(Stop):
        engine.run(DataLoader(range(12), 3, shuffle=True), max_epochs=3)  # type: ignore[arg-type]
    assert stop is not None or (manager.is_ended and manager.iteration == ITERATIONS and manager.epoch == 3)
    return seen


@pytest.mark.parametrize("skip", [False, True], ids=["completed", "skipped"])
@pytest.mark.parametrize("stop", range(5, ITERATIONS))
def test_training_with_a_terminated_epoch_resumes_exactly(
    stop: int, skip: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(tmp_path / "whole", skip=skip)
    assert len(whole) == ITERATIONS
    assert train(tmp_path / "run", stop, skip=skip) == whole[:stop]
    assert train(tmp_path / "run", skip=skip, resume=True) == whole[stop:]
    assert not [record for record in caplog.records if record.levelname == "WARNING" and "loader" in record.message]


def test_terminated_epoch_ends_the_epoch_of_the_log(tmp_path: Path) -> None:
    train(tmp_path)
    rows = json.loads((tmp_path / "log").read_text())
    assert [(row["epoch"], row["iteration"]) for row in rows] == [(1, 4), (2, 6), (3, 10)]
