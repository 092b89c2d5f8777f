"""Snapshot of the last iteration of a training that stops between two snapshots, and snapshots after an error."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions, triggers, updaters

ITERATION = (1, "iteration")
DATA = [torch.full((2, 2), 0.1 * index) for index in range(6)]


def list_snapshots(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith(("snapshot", "latest", "best")))


def step_of(directory: Path, name: str) -> int:
    step: int = torch.load(directory / name)["manager"]["iteration"]
    return step


class Job:
    """Training of a small model, which a fault may end, in each front end."""

    def __init__(self, directory: Path, *entries: Any, stop: Any = None, epochs: int = 3) -> None:
        torch.manual_seed(0)
        self.directory, self.entries, self.stop, self.epochs = directory, list(entries), stop, epochs
        self.model = nn.Linear(2, 1)
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.optimizer.target = self.model
        self.manager: Any = None
        #: Limit of the Ignite engine, if it is not that of the manager.
        self.engine_epochs: int | None = None

    def _options(self) -> dict[str, Any]:
        return {"optimizers": self.optimizer, "out_dir": self.directory, "sinks": ["json"], "stop_trigger": self.stop}

    def _loss(self, batch: Tensor) -> Tensor:
        loss: Tensor = self.model(batch).square().mean()
        pte.report({"loss": loss})
        return loss

    def run_loop(self, loader: Any = DATA, resume: bool = False) -> None:
        self.manager = pte.ExtensionsManager(self.model, self.epochs, self.entries, **self._options())
        if resume:
            self.manager.resume()
        for batch in self.manager.batches(loader):
            with self.manager.run_iteration(step_optimizers=["main"]):
                self._loss(batch).backward()

    def run_explicit(self, loader: Any = DATA, resume: bool = False) -> None:
        self.manager = pte.ExtensionsManager(
            self.model, self.epochs, self.entries, iters_per_epoch=len(loader), **self._options()
        )
        if resume:
            self.manager.resume()
        with self.manager:
            while not self.manager.stop_trigger:
                for batch in loader:
                    with self.manager.run_iteration(step_optimizers=["main"]):
                        self._loss(batch).backward()
                    if self.manager.stop_trigger:
                        break

    def run_trainer(self, loader: Any = DATA, resume: bool = False) -> None:
        updater = updaters.StandardUpdater(loader, self.optimizer, loss_func=self._loss)
        trainer = pte.Trainer(
            updater, self.stop or (self.epochs, "epoch"), self.directory, self.entries, sinks=["json"]
        )
        self.manager = trainer.manager
        if resume:
            trainer.resume()
        trainer.run()

    def run_ignite(self, loader: Any = DATA, resume: bool = False) -> None:
        ignite = pytest.importorskip("ignite.engine")

        def update(_: Any, batch: Tensor) -> None:
            self.optimizer.zero_grad()
            self._loss(batch).backward()
            self.optimizer.step()

        engine = ignite.Engine(update)
        self.engine = engine
        self.manager = pte.IgniteExtensionsManager(engine, self.model, self.epochs, self.entries, **self._options())
        if resume:
            self.manager.resume()
        self.on_engine(engine)
        engine.run(loader, max_epochs=self.engine_epochs or self.epochs)

    def on_engine(self, engine: Any) -> None:
        """Attach handlers."""


FRONT_ENDS = ["run_loop", "run_explicit", "run_trainer", "run_ignite"]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize(
    "make_stop",
    [
        lambda: lambda manager: manager.iteration >= 8,
        lambda: triggers.EarlyStoppingTrigger((4, "iteration"), "none", patience=1, max_trigger=(8, "iteration")),
    ],
    ids=["function", "early stopping"],
)
def test_training_stopped_between_two_snapshots_saves_its_last_state(
    tmp_path: Path, front_end: str, make_stop: Callable[[], Any]
) -> None:
    log = extensions.LogReport(trigger=(5, "iteration"))
    job = Job(tmp_path, extensions.snapshot(), log, stop=make_stop())
    getattr(job, front_end)()
    assert list_snapshots(tmp_path) == ["snapshot_iter_6", "snapshot_iter_8"]
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == [5, 8]
    whole = Job(tmp_path / "whole", extensions.snapshot(), extensions.LogReport(trigger=(5, "iteration")))
    getattr(whole, front_end)()
    resumed = Job(tmp_path, extensions.snapshot(), extensions.LogReport(trigger=(5, "iteration")))
    getattr(resumed, front_end)(resume=True)
    if front_end == "run_explicit":
        return  # A loop over a bare loader does not resume at the exact batch.
    assert resumed.model.weight.equal(whole.model.weight)
    rows = [json.loads((folder / "log").read_text()) for folder in (tmp_path, tmp_path / "whole")]
    resumed_losses, whole_losses = ([(row["iteration"], row["loss"]) for row in each] for each in rows)
    assert resumed_losses == whole_losses


def test_ignite_engine_that_terminates_itself_saves_its_last_state(tmp_path: Path) -> None:
    class Terminating(Job):
        def on_engine(self, engine: Any) -> None:
            from ignite.engine import Events

            engine.add_event_handler(Events.ITERATION_COMPLETED(once=8), engine.terminate)

    job = Terminating(tmp_path, extensions.snapshot())
    job.run_ignite()
    job.manager.close()
    assert list_snapshots(tmp_path) == ["snapshot_iter_6", "snapshot_iter_8"]


def test_ignite_engine_that_ends_with_a_snapshot_saves_no_other(tmp_path: Path) -> None:
    job = Job(tmp_path, extensions.snapshot(trigger=(3, "iteration")))
    job.run_ignite()
    assert list_snapshots(tmp_path) == [f"snapshot_iter_{step}" for step in (12, 15, 18, 3, 6, 9)]
    assert len(job.manager.run.checkpoints()) == 6


def test_time_limit_saves_the_last_state(tmp_path: Path) -> None:
    job = Job(tmp_path, extensions.snapshot(), stop=triggers.TimeTrigger(1e-9))
    job.run_loop()
    assert list_snapshots(tmp_path) == ["snapshot_iter_1"]


def test_training_stopped_in_an_iteration_with_a_snapshot_saves_one(tmp_path: Path) -> None:
    job = Job(tmp_path, extensions.snapshot(trigger=(4, "iteration")), stop=(8, "iteration"))
    job.run_loop()
    assert [checkpoint.step for checkpoint in job.manager.run.checkpoints()] == [4, 8]


def test_last_snapshot_replaces_a_rolling_file_and_counts_for_retention(tmp_path: Path) -> None:
    rolling = extensions.snapshot("latest", trigger=(4, "iteration"))
    newest = extensions.snapshot(trigger=(5, "iteration"), n_retains=2)
    Job(tmp_path, rolling, newest, stop=(7, "iteration")).run_loop()
    assert list_snapshots(tmp_path) == ["latest", "snapshot_iter_5", "snapshot_iter_7"]
    assert step_of(tmp_path, "latest") == 7


@pytest.mark.parametrize(
    "make_snapshot",
    [
        lambda: extensions.snapshot("best", trigger=triggers.MinValueTrigger("loss", (2, "iteration"))),
        lambda: extensions.snapshot("best", trigger=lambda manager: manager.iteration == 2),
        lambda: extensions.snapshot("best", trigger=(2, "iteration"), at_end=False),
        lambda: extensions.snapshot("best", trigger=(2, "iteration"), condition=lambda: False),
        lambda: extensions.snapshot_object(nn.Linear(1, 1), "best", trigger=(2, "iteration")),
        lambda: extensions.snapshot("best", target=nn.Linear(1, 1), trigger=(2, "iteration")),
    ],
    ids=["value trigger", "function", "at_end=False", "condition", "object", "target"],
)
def test_last_state_is_not_saved_in_place_of_a_chosen_one(tmp_path: Path, make_snapshot: Any) -> None:
    saved = make_snapshot()
    Job(tmp_path, saved, stop=(3, "iteration")).run_loop()
    if (tmp_path / "best").exists() and isinstance(saved, type(extensions.snapshot())):
        assert step_of(tmp_path, "best") == 2


def ranked_snapshot() -> Any:
    return extensions.snapshot(n_retains=1, keep_best=("loss", "min", 1))


def content_of(directory: Path) -> tuple[Any, ...]:
    (name,) = list_snapshots(directory)
    (entry,) = json.loads((directory / "checkpoints.json").read_text())
    # A resume records the snapshot again, after the journal is rewound to it.
    return name, (directory / name).read_bytes(), {**entry, "seq": 0, "time": 0}


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_second_start_of_a_complete_training_leaves_its_snapshot_unchanged(tmp_path: Path, front_end: str) -> None:
    getattr(Job(tmp_path, ranked_snapshot()), front_end)()
    before = content_of(tmp_path)
    getattr(Job(tmp_path, ranked_snapshot()), front_end)(resume=True)
    assert content_of(tmp_path) == before


@pytest.mark.parametrize("leave", ["break", "start", "trainer", "ignite"])
def test_longer_training_left_before_its_first_iteration_leaves_the_snapshot_unchanged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, leave: str
) -> None:
    front_end = f"run_{leave}" if leave in ("trainer", "ignite") else "run_loop"
    getattr(Job(tmp_path, ranked_snapshot()), front_end)()
    before = content_of(tmp_path)
    caplog.clear()
    job = Job(tmp_path, ranked_snapshot(), epochs=5)
    if leave == "ignite":
        job.engine_epochs = 3
        job.run_ignite(resume=True)
        job.manager.close()
    elif leave == "trainer":
        updater = updaters.StandardUpdater(DATA, job.optimizer, loss_func=job._loss)
        manager = pte.Trainer(updater, (5, "epoch"), tmp_path, job.entries, sinks=["json"]).manager
        manager.resume()
        with manager:
            manager.start()
    else:
        manager = pte.ExtensionsManager(job.model, 5, job.entries, **job._options())
        manager.resume()
        if leave == "start":
            manager.start()
        for _ in manager.batches(DATA):
            break
        manager.close()
    assert content_of(tmp_path) == before
    assert pte.load(tmp_path, "best").values["loss"] == before[2]["values"]["loss"]
    assert not any("keep_best" in message for message in caplog.messages)


@pytest.mark.parametrize("is_resumed", [False, True], ids=["new", "resumed"])
def test_ignite_engine_that_ends_before_the_manager_names_both_lengths(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_resumed: bool
) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")
    if is_resumed:
        Job(tmp_path, ranked_snapshot()).run_ignite()
    assert not any("engine.run()" in message for message in caplog.messages)
    job = Job(tmp_path, ranked_snapshot(), epochs=5)
    job.engine_epochs = 3
    job.run_ignite(resume=is_resumed)
    (record,) = (record for record in caplog.records if "engine.run()" in record.getMessage())
    assert record.levelname == ("WARNING" if is_resumed else "INFO")
    assert record.getMessage() == (
        f"engine.run() ended at iteration 18{' and trained nothing' if is_resumed else ''}, because its max_epochs is "
        "3. The manager trains until 5 epochs are complete. To continue, pass a higher max_epochs to engine.run()."
    )
    job.manager.close()


def test_break_and_close_save_nothing(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager(nn.Linear(1, 1), 1, [extensions.snapshot()], out_dir=tmp_path)
    for index in manager.batches(range(6)):
        with manager.run_iteration():
            pass
        if index == 3:
            break
    manager.close()
    assert list_snapshots(tmp_path) == []


# -- errors ------------------------------------------------------------------------------------------------------------


class FailingLoader:
    """Loader that fails at the third batch of the second pass."""

    given = 0

    def __len__(self) -> int:
        return len(DATA)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in DATA:
            self.given += 1
            if self.given == 9:
                raise ZeroDivisionError("a broken example")
            yield batch


class FailingExtension(pte.Extension):
    def __call__(self, manager: pte.Manager) -> None:
        if manager.iteration == 8:
            raise ZeroDivisionError("an extension")


class FailingJob(Job):
    calls = 0

    def _loss(self, batch: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 9:
            raise ZeroDivisionError("a step")
        return super()._loss(batch)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("fault", ["loader", "extension", "step"])
def test_error_in_any_part_saves_a_snapshot_where_one_is_configured(tmp_path: Path, front_end: str, fault: str) -> None:
    saved = extensions.snapshot(snapshot_on_error=True)
    others = [FailingExtension()] if fault == "extension" else []
    job = (FailingJob if fault == "step" else Job)(tmp_path, saved, *others)
    with pytest.raises(ZeroDivisionError):
        getattr(job, front_end)(FailingLoader() if fault == "loader" else DATA)
    assert list_snapshots(tmp_path) == ["snapshot_iter_6", "snapshot_iter_8_on_error"]
    assert step_of(tmp_path, "snapshot_iter_8_on_error") == 8


def test_error_between_two_iterations_saves_a_snapshot(tmp_path: Path) -> None:
    job = Job(tmp_path, extensions.snapshot(snapshot_on_error=True))
    manager = pte.ExtensionsManager(job.model, 3, job.entries, iters_per_epoch=6, out_dir=tmp_path)

    def train() -> None:
        with manager:
            for _ in range(8):
                with manager.run_iteration():
                    pass
            raise ZeroDivisionError("a validation")

    with pytest.raises(ZeroDivisionError):
        train()
    assert list_snapshots(tmp_path) == ["snapshot_iter_6", "snapshot_iter_8_on_error"]


def test_uncaught_error_between_two_iterations_saves_a_snapshot(tmp_path: Path) -> None:
    script = """
import torch, pte_tracking as pte
from pte_tracking import extensions
manager = pte.ExtensionsManager(torch.nn.Linear(1, 1), 3, [extensions.snapshot(snapshot_on_error=True)], out_dir="run")
for _ in manager.batches(range(6)):
    with manager.run_iteration():
        pass
    if manager.iteration == 8:
        raise ZeroDivisionError("a validation")
"""
    finished = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert finished.stderr.endswith("ZeroDivisionError: a validation\n")
    assert list_snapshots(tmp_path / "run") == ["snapshot_iter_6", "snapshot_iter_8_on_error"]


def test_run_collected_within_the_handler_of_an_earlier_error_saves_no_snapshot_of_it(tmp_path: Path) -> None:
    def train() -> None:
        saved = extensions.snapshot(snapshot_on_error=True)
        manager = pte.ExtensionsManager(nn.Linear(1, 1), 3, [saved], iters_per_epoch=6, out_dir=tmp_path)
        with manager.run_iteration():
            pass

    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        train()
    assert list_snapshots(tmp_path) == []


# -- two snapshot extensions -------------------------------------------------------------------------------------------


class RankedJob(Job):
    def _loss(self, batch: Tensor) -> Tensor:
        pte.report({"score": -abs(self.manager.iteration - 6)})
        return super()._loss(batch)


def test_two_snapshot_extensions_keep_their_own_files_and_one_list(tmp_path: Path, caplog: Any) -> None:
    newest = extensions.snapshot("newest_{.iteration}", trigger=ITERATION, n_retains=2)
    best = extensions.snapshot("best_{.iteration}", trigger=ITERATION, keep_best=("score", "max", 1))
    with caplog.at_level(logging.ERROR):
        RankedJob(tmp_path, newest, best, extensions.LogReport()).run_loop()
    names = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("newest", "best")))
    assert names == ["best_18", "best_7", "newest_17", "newest_18"]
    listed = json.loads((tmp_path / "checkpoints.json").read_text())
    paths = [entry["path"] for entry in (listed if isinstance(listed, list) else listed["checkpoints"])]
    assert sorted(paths) == names
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("snapshot_iter_{.iteration}", "snapshot_iter_{.iteration}"),
        ("model_{.iteration}", "model_{.epoch}"),
        ("latest", "latest"),
        ("model_5", "model_{.iteration}"),
    ],
)
def test_two_snapshot_extensions_with_the_same_files_are_refused(tmp_path: Path, first: str, second: str) -> None:
    entries: list[Any] = [extensions.snapshot(first), extensions.snapshot(second)]
    with pytest.raises(ValueError, match=r"filename: the files .* are also those of the extension 'snapshot'\. Each"):
        pte.ExtensionsManager({}, 1, entries, out_dir=tmp_path)
    with pytest.raises(ValueError, match="filename: the files"):
        pte.ExtensionsManager(
            {}, 1, [entries[0], extensions.snapshot_object(nn.Linear(1, 1), second)], out_dir=tmp_path
        )
    different = [extensions.snapshot(first), extensions.snapshot(f"other_{second}")]
    pte.ExtensionsManager({}, 1, different, out_dir=tmp_path)
