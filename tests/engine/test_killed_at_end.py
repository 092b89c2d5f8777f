"""A run whose process was killed after the last iteration, and which the next start finds complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._runs.summary import read_params
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.journal_reader import read
from pte_tracking._store.status import read_status
from pte_tracking.updaters import StandardUpdater


def train(out: Path, front_end: str = "loop", n_retains: int = -1, **options: Any) -> pte.Run:
    """Train 4 iterations, or resume a complete training."""
    options = {"out_dir": out, "sinks": ["json"], **options}
    saved = [extensions.snapshot(n_retains=n_retains), extensions.LogReport()]
    if front_end == "loop":
        manager = pte.ExtensionsManager(nn.Linear(1, 1), 2, saved, **options)
        manager.resume()
        for _ in manager.iterations(range(2)):
            pte.report({"loss": 1.0})
        return manager.run
    if front_end == "with":
        with pte.ExtensionsManager(nn.Linear(1, 1), 2, saved, **options) as manager:
            manager.resume()
            for _ in manager.batches(range(2)):
                with manager.run_iteration():
                    pte.report({"loss": 1.0})
        return manager.run
    if front_end == "trainer":
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.target = model  # type: ignore[attr-defined]
        updater = StandardUpdater([torch.ones(1)] * 2, optimizer, loss_func=lambda x: model(x).sum())
        trainer = pte.Trainer(updater, (2, "epoch"), extensions=saved, **options)
        trainer.resume()
        trainer.run()
        return trainer.manager.run
    engine = Engine(lambda engine, batch: None)
    ignite_manager = pte.IgniteExtensionsManager(engine, nn.Linear(1, 1), 2, saved, **options)
    ignite_manager.resume()
    engine.run(range(2), max_epochs=2)
    return ignite_manager.run


def kinds(directory: Path) -> list[str]:
    return [type(event).__name__ for event, _ in read(directory / "journal.jsonl")]


def undo_end(directory: Path, status: str | None) -> None:
    """Leave the journal of a process that was killed before, or interrupted while, it ended the complete run."""
    lines = (directory / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert b'"run_ended"' in lines[-1]
    end = b"" if status is None else lines[-1].replace(b"FINISHED", status.encode())
    (directory / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + end)


@pytest.mark.parametrize("status", [None, "KILLED"], ids=["killed", "interrupted"])
@pytest.mark.parametrize("front_end", ["loop", "with", "trainer", "ignite"])
def test_complete_run_of_killed_process_is_finished_by_the_next_start(
    tmp_path: Path, front_end: str, status: str | None
) -> None:
    train(tmp_path, front_end)
    before = (tmp_path / "log").read_bytes()
    undo_end(tmp_path, status)
    assert read_status(tmp_path) == "KILLED"
    run = train(tmp_path, front_end, params={"lr": 2.0})
    assert read_status(tmp_path) == "FINISHED"
    assert (tmp_path / "log").read_bytes() == before
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2, 4]
    assert pte.load(tmp_path).step == 4
    assert read_params(tmp_path) == {}
    count = len(kinds(tmp_path))
    train(tmp_path, front_end)
    assert len(kinds(tmp_path)) == count


@pytest.mark.parametrize("front_end", ["loop", "with", "trainer", "ignite"])
def test_last_snapshot_of_killed_process_is_registered_by_the_next_start(tmp_path: Path, front_end: str) -> None:
    train(tmp_path, front_end, n_retains=1)
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if b'"snapshot_iter_4"' in line)
    (tmp_path / "snapshot_iter_2").write_bytes((tmp_path / "snapshot_iter_4").read_bytes())
    journal.write_bytes(b"".join(lines[:last]))  # as if the process was killed after it had renamed the file
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [2]
    run = train(tmp_path, front_end, n_retains=1)
    assert read_status(tmp_path) == "FINISHED"
    assert [(checkpoint.step, checkpoint.path) for checkpoint in run.checkpoints()] == [(4, "snapshot_iter_4")]
    assert pte.load(tmp_path).step == 4
    assert not (tmp_path / "snapshot_iter_2").exists()


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_complete_run_that_ended_otherwise_is_not_changed_by_the_next_start(tmp_path: Path, status: str) -> None:
    train(tmp_path)
    undo_end(tmp_path, status)
    before = (tmp_path / "journal.jsonl").read_bytes()
    train(tmp_path)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_incomplete_run_of_killed_process_that_trains_nothing_stays_killed(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 2, [extensions.snapshot()], out_dir=tmp_path, sinks=["json"])
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for _ in manager.iterations(range(2)):
            if manager.iteration == 3:
                raise KeyboardInterrupt
    manager.close("KILLED")
    assert read_status(tmp_path) == "KILLED"
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 2, [extensions.snapshot()], out_dir=tmp_path, sinks=["json"])
    manager.resume()
    manager.close()
    assert read_status(tmp_path) == "KILLED"


def test_complete_run_whose_second_start_fails_stays_killed(tmp_path: Path) -> None:
    train(tmp_path)
    undo_end(tmp_path, None)
    saved = [extensions.snapshot(), extensions.LogReport()]
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 2, saved, out_dir=tmp_path, sinks=["json"])
    manager.resume()
    with pytest.raises(RuntimeError, match="own error"), manager:
        raise RuntimeError("own error")
    assert read_status(tmp_path) == "KILLED"
