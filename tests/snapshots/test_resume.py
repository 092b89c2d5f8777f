"""What a training goes on from."""

import io
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, triggers
from pte_tracking._snapshots import selection
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._store.events import Checkpoint, CheckpointRemoved
from pte_tracking._store.journal import find_events
from pte_tracking.sinks import Connection, RunView, Sink

EVERY: Any = (1, "iteration")


def make_manager(out: Path, *ours: Any, model: nn.Module | None = None, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        nn.Linear(3, 2) if model is None else model,
        10,
        [*(ours or [extensions.snapshot(trigger=EVERY)]), extensions.LogReport(trigger=EVERY)],
        out_dir=out,
        iters_per_epoch=2,
        **options,
    )


def run(manager: pte.ExtensionsManager, iterations: int, losses: Mapping[int, float] | None = None) -> None:
    """Do some iterations, in which each weight becomes the number of those done."""
    with manager:
        for _ in range(iterations):
            with manager.run_iteration():
                done = manager.iteration + 1
                for parameter in manager.models["main"].parameters():
                    parameter.data.fill_(done)
                pte.report({"loss": (losses or {}).get(done, 1.0)})


def resume_and_inspect(out: Path, source: Any = "latest", *ours: Any) -> tuple[int | None, float]:
    """The step gone on from, and a weight."""
    manager = make_manager(out, *ours)
    weight = manager.models["main"].get_parameter("weight")
    weight.data.fill_(-1)
    checkpoint = manager.resume(source)
    assert manager.iteration == (0 if checkpoint is None else checkpoint.step)
    manager.close()
    return None if checkpoint is None else checkpoint.step, weight[0, 0].item()


def damage(path: Path) -> None:
    """Flip a bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def checkpoints(out: Path) -> list[tuple[str, int]]:
    return [(entry.path, entry.step) for entry in pte.Run(out).checkpoints()]


# -- latest ------------------------------------------------------------------------------------------------------------


def test_resume_empty_directory_starts_new_run(tmp_path: Path) -> None:
    assert resume_and_inspect(tmp_path) == (None, -1)
    assert (tmp_path / "run.json").exists()


def test_resume_latest_selects_newest_snapshot(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 11)
    assert resume_and_inspect(tmp_path) == (11, 11)
    assert not (tmp_path / "previous").exists()


def test_resume_latest_ignores_file_times_and_unlisted_files(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 11)
    shutil.copy(tmp_path / "snapshot_iter_4", tmp_path / "snapshot_iter_4.bak")
    shutil.copy(tmp_path / "snapshot_iter_3", tmp_path / "snapshot_iter_99")
    os.utime(tmp_path / "snapshot_iter_5")
    assert resume_and_inspect(tmp_path) == (11, 11)


def test_resume_without_snapshot_restarts_same_run(tmp_path: Path) -> None:
    rare = extensions.snapshot(trigger=(5, "iteration"))
    manager = make_manager(tmp_path, rare, params={"lr": 1})
    run(manager, 3)
    again = make_manager(tmp_path, extensions.snapshot(trigger=(5, "iteration")))
    assert again.resume() is None
    assert again.run.id == manager.run.id
    assert again.run.rows() == []
    run(again, 2)
    assert [row.step for row in again.run.rows()] == [1, 2]


@pytest.mark.parametrize(
    "damage_file", [damage, lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 3000)]
)
def test_resume_damaged_snapshot_is_skipped_with_warning(
    damage_file: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_manager(tmp_path), 5)
    damage_file(tmp_path / "snapshot_iter_5")
    (tmp_path / "snapshot_iter_4").unlink()
    assert resume_and_inspect(tmp_path) == (3, 3)
    messages = [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert "snapshot_iter_5" in messages[0]
    assert "snapshot_iter_4: there is no such file" in messages[1]
    assert "goes on from" in messages[2]
    assert "snapshot_iter_3" in messages[2]


def test_resume_all_snapshots_damaged_restarts_run_with_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make_manager(tmp_path), 2)
    for name in ("snapshot_iter_1", "snapshot_iter_2"):
        (tmp_path / name).write_bytes(b"nothing")
    assert resume_and_inspect(tmp_path) == (None, -1)
    assert "none of 2 snapshots is intact; the run begins again" in caplog.text


def drop_registration(out: Path, step: int) -> None:
    """Cut the journal before the announcement of a snapshot, as a kill at that moment leaves it."""
    journal = out / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    (cut,) = (i for i, line in enumerate(lines) if b'"kind":"checkpoint"' in line and b'"step":%d,' % step in line)
    journal.write_bytes(b"".join(lines[:cut]))


def test_resume_unregistered_snapshot_is_registered_and_selected(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, asynchronous=False)), 3, {3: 0.25})
    drop_registration(tmp_path, 3)
    assert resume_and_inspect(tmp_path) == (3, 3)
    newest = pte.Run(tmp_path).checkpoints()[-1]
    assert (newest.path, newest.step, newest.epoch, newest.values) == ("snapshot_iter_3", 3, 1.5, {"loss": 0.25})


def test_resume_after_killed_resume_registers_checkpoint_again(tmp_path: Path) -> None:
    """Going back takes back the announcement of the very snapshot gone back to; it is made again, if need be later."""
    best = {"trigger": EVERY, "keep_best": ("loss", "min", 2)}
    run(make_manager(tmp_path, extensions.snapshot(**best)), 4, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
    state = torch.load(tmp_path / "snapshot_iter_4")
    killed = pte.Run(tmp_path)
    killed.open(at=state["run"])
    killed.close()
    assert ("snapshot_iter_4", 4) not in checkpoints(tmp_path)
    manager = make_manager(tmp_path, extensions.snapshot(**best))
    resumed_from = manager.resume()
    assert resumed_from is not None
    assert resumed_from.step == 4
    run(manager, 1, {5: 5.0})
    assert checkpoints(tmp_path) == [("snapshot_iter_1", 1), ("snapshot_iter_2", 2), ("snapshot_iter_5", 5)]


def test_resume_fixed_filename_registers_unregistered_snapshot(tmp_path: Path) -> None:
    def make_fixed_name_snapshot() -> Any:
        return extensions.snapshot("newest", trigger=EVERY, asynchronous=False)

    run(make_manager(tmp_path, make_fixed_name_snapshot()), 3)
    assert checkpoints(tmp_path) == [("newest", 3)]
    drop_registration(tmp_path, 3)
    assert checkpoints(tmp_path) == [("newest", 2)]
    assert resume_and_inspect(tmp_path, "latest", make_fixed_name_snapshot()) == (3, 3)
    assert checkpoints(tmp_path) == [("newest", 3)]


def test_resume_latest_ignores_superseded_snapshot(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 5)
    rewound = make_manager(tmp_path)
    rewound.resume(tmp_path / "snapshot_iter_2")
    assert [row.step for row in rewound.run.rows()] == [1, 2]
    rewound.close()
    assert (tmp_path / "snapshot_iter_5").exists()
    assert checkpoints(tmp_path) == [("snapshot_iter_1", 1), ("snapshot_iter_2", 2)]
    assert resume_and_inspect(tmp_path) == (2, 2)


def test_resume_path_accepts_superseded_snapshot(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 5)
    assert resume_and_inspect(tmp_path, tmp_path / "snapshot_iter_2") == (2, 2)
    assert resume_and_inspect(tmp_path, tmp_path / "snapshot_iter_4") == (4, 4)
    assert [row.step for row in pte.Run(tmp_path).rows()] == [1, 2, 3, 4]


def test_resume_keeps_pruned_checkpoints_removed(tmp_path: Path) -> None:
    def two() -> Any:
        return extensions.snapshot(trigger=EVERY, n_retains=2)

    run(make_manager(tmp_path, two()), 5)
    assert resume_and_inspect(tmp_path, "latest", two()) == (5, 5)
    assert checkpoints(tmp_path) == [("snapshot_iter_4", 4), ("snapshot_iter_5", 5)]
    manager = make_manager(tmp_path, two())
    manager.resume()
    run(manager, 1)
    assert checkpoints(tmp_path) == [("snapshot_iter_5", 5), ("snapshot_iter_6", 6)]
    assert not (tmp_path / "snapshot_iter_4").exists()


def test_retention_prunes_after_successor_is_registered(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, n_retains=1)), 3)
    journal = tmp_path / "journal.jsonl"
    registered = {event.path: event.seq for event, _ in find_events(journal, Checkpoint)}
    removed = {event.path: event.seq for event, _ in find_events(journal, CheckpointRemoved)}
    assert registered["snapshot_iter_2"] < removed["snapshot_iter_1"]
    assert registered["snapshot_iter_3"] < removed["snapshot_iter_2"]


def test_resume_finished_training_yields_no_batches(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 20)
    manager = make_manager(tmp_path)
    manager.resume()
    assert manager.stop_trigger
    assert list(manager.batches([1, 2])) == []


def test_resume_finished_training_with_more_epochs_continues(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 20)
    longer = make_manager(tmp_path, stop_trigger=(12, "epoch"))
    longer.resume()
    assert not longer.stop_trigger
    run(longer, 4)
    assert longer.stop_trigger


def test_autoload_resumes_at_first_iteration(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 3)
    manager = make_manager(tmp_path, extensions.snapshot(trigger=EVERY, autoload=True))
    assert manager.iteration == 0
    seen = []
    for _ in manager.batches([1, 2]):
        with manager.run_iteration():
            pte.report({"loss": 1})
        seen.append(manager.iteration)
    assert seen[0] == 4
    assert not (tmp_path / "previous").exists()


# -- best --------------------------------------------------------------------------------------------------------------


def make_best_snapshot(mode: str, key: str = "loss") -> Any:
    return extensions.snapshot(trigger=EVERY, keep_best=(key, mode, 9))


def test_resume_best_selects_best_intact_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(make_manager(tmp_path, make_best_snapshot("min")), 4, {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan")})
    assert resume_and_inspect(tmp_path, "best", make_best_snapshot("max")) == (1, 1)
    shutil.rmtree(tmp_path)
    run(make_manager(tmp_path, make_best_snapshot("min")), 4, {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan")})
    damage(tmp_path / "snapshot_iter_2")
    assert resume_and_inspect(tmp_path, "best", make_best_snapshot("min")) == (3, 3)
    assert "snapshot_iter_2" in caplog.text


def test_resume_best_without_usable_metric_raises(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 2)
    with pytest.raises(ValueError, match=r"give the manager a snapshot\(keep_best="):
        make_manager(tmp_path).resume("best")
    with pytest.raises(LookupError, match="no snapshot has a finite value of 'val/loss'; they have loss"):
        make_manager(tmp_path, make_best_snapshot("min", "val/loss")).resume("best")


def test_resume_best_empty_directory_starts_new_run(tmp_path: Path) -> None:
    assert resume_and_inspect(tmp_path, "best", make_best_snapshot("min")) == (None, -1)


# -- a file ------------------------------------------------------------------------------------------------------------


def test_resume_relative_path_loads_that_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(make_manager(tmp_path / "result"), 4)
    monkeypatch.chdir(tmp_path)
    assert resume_and_inspect(tmp_path / "result", "result/snapshot_iter_3") == (3, 3)
    assert resume_and_inspect(tmp_path / "result", Path("result") / "snapshot_iter_2") == (2, 2)


@pytest.mark.parametrize("damage_file", [damage, Path.unlink, lambda path: path.write_bytes(b"hello")])
def test_resume_damaged_path_raises_and_keeps_journal(damage_file: Any, tmp_path: Path) -> None:
    run(make_manager(tmp_path), 3)
    damage_file(tmp_path / "snapshot_iter_3")
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(SnapshotError, match="snapshot_iter_3: "):
        make_manager(tmp_path).resume(tmp_path / "snapshot_iter_3")
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_resume_copied_snapshot_imports_its_run(tmp_path: Path) -> None:
    """Only the snapshot and the journal: what a backend stores of a run."""
    first = make_manager(tmp_path / "first")
    run(first, 5)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("snapshot_iter_3", "journal.jsonl"):
        shutil.copy(tmp_path / "first" / name, copy)
    second = make_manager(tmp_path / "second")
    checkpoint = second.resume(copy / "snapshot_iter_3")
    assert checkpoint is not None
    assert checkpoint.path == "snapshot_iter_3"
    assert second.run.id == first.run.id
    assert [row.step for row in second.run.rows()] == [1, 2, 3]
    run(second, 1)
    assert [row.step for row in second.run.rows()] == [1, 2, 3, 4]
    assert resume_and_inspect(tmp_path / "second") == (4, 4)


def test_resume_imported_snapshot_is_available_to_next_resume(tmp_path: Path) -> None:
    run(make_manager(tmp_path / "first"), 5)
    assert resume_and_inspect(tmp_path / "second", tmp_path / "first" / "snapshot_iter_3") == (3, 3)
    shutil.rmtree(tmp_path / "first")
    assert resume_and_inspect(tmp_path / "second") == (3, 3)


def test_resume_snapshot_of_other_run_archives_current_run(tmp_path: Path) -> None:
    run(make_manager(tmp_path / "first"), 5)
    other = make_manager(tmp_path / "second")
    run(other, 4)
    assert resume_and_inspect(tmp_path / "second", tmp_path / "first" / "snapshot_iter_3") == (3, 3)
    archive = tmp_path / "second" / "previous" / other.run.id
    assert sorted(path.name for path in archive.glob("snapshot_*")) == [f"snapshot_iter_{i}" for i in (1, 2, 3, 4)]
    assert sorted(path.name for path in (tmp_path / "second").glob("snapshot_*")) == ["snapshot_iter_3"]


def test_resume_manually_saved_state_rewinds_run(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with manager.run_iteration():
        manager.models["main"].get_parameter("weight").data.fill_(1)
    torch.save(manager.state_dict(), tmp_path / "by_hand.pt")
    run(manager, 2)
    assert resume_and_inspect(tmp_path, tmp_path / "by_hand.pt") == (1, 1)
    assert [row.step for row in pte.Run(tmp_path).rows()] == [1]


# -- a backend ---------------------------------------------------------------------------------------------------------


class Shelf(Sink):
    """Keeps checkpoints in folders."""

    name = "shelf"
    schemes = ("shelf",)
    root: ClassVar[Path]

    def fetch(self, uri: str, directory: Path) -> Path:
        assert list(directory.iterdir()) == []
        if uri != "shelf:/entry":
            raise LookupError(f"{uri} is not on the shelf")
        for name in ("snapshot_iter_3", "journal.jsonl"):
            shutil.copy(self.root / name, directory)
        return directory / "snapshot_iter_3"

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        raise NotImplementedError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Shelf.root = tmp_path / "shelf"
    run(make_manager(Shelf.root), 5)
    installed = selection.get_sink
    monkeypatch.setattr(selection, "installed_sinks", lambda: ["json", "shelf"])
    monkeypatch.setattr(selection, "get_sink", lambda name: Shelf if name == "shelf" else installed(name))
    return Shelf.root


def test_resume_uri_fetches_checkpoint_into_new_directory(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert resume_and_inspect(out, "shelf:/entry") == (3, 3)
    assert [row.step for row in pte.Run(out).rows()] == [1, 2, 3]
    assert checkpoints(out)[-1] == ("snapshot_iter_3", 3)
    assert list(out.glob(".fetched*")) == []
    shutil.rmtree(shelf)
    assert resume_and_inspect(out) == (3, 3)


def test_resume_uri_keeps_earlier_checkpoints_registered(shelf: Path, tmp_path: Path) -> None:
    """Earlier checkpoints are not here, but there: they are not said to be gone."""
    assert resume_and_inspect(tmp_path / "new", "shelf:/entry") == (3, 3)
    assert [step for _, step in checkpoints(tmp_path / "new")] == [1, 2, 3]


def test_resume_uri_unavailable_or_damaged_raises(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="is not on the shelf"):
        make_manager(tmp_path / "new").resume("shelf:/two")
    assert list((tmp_path / "new").glob(".fetched*")) == []
    with pytest.raises(ValueError, match="no installed sink knows drawer:; known are shelf"):
        make_manager(tmp_path / "new").resume("drawer:/entry")
    damage(shelf / "snapshot_iter_3")
    with pytest.raises(SnapshotError, match="damaged"):
        make_manager(tmp_path / "new").resume("shelf:/entry")
    assert list((tmp_path / "new").glob(".fetched*")) == []


# -- another training --------------------------------------------------------------------------------------------------


def test_resume_shape_mismatch_raises_and_restores_nothing(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 2)
    before = (tmp_path / "journal.jsonl").read_bytes()
    wider = nn.Linear(4, 2)
    weight = wider.weight.detach().clone()
    with pytest.raises(ValueError, match="models/main: 'weight' is 2x3 in the snapshot, 2x4 in the model") as caught:
        make_manager(tmp_path, model=wider).resume()
    assert "bias" not in str(caught.value)
    assert torch.equal(wider.weight, weight)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_resume_parameter_mismatch_lists_names(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 2)
    with pytest.raises(
        ValueError, match=r"(?s)'0\.weight' is missing in the snapshot.*'weight' is in the snapshot, not"
    ):
        make_manager(tmp_path, model=nn.Sequential(nn.Linear(3, 2))).resume()


def test_resume_optimizer_group_mismatch_raises_value_error(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    run(make_manager(tmp_path, model=model, optimizers=torch.optim.SGD(model.parameters())), 2)
    only_weight = torch.optim.SGD([model.weight])
    with pytest.raises(
        ValueError, match=r"optimizers/main: its groups have \[2\] parameters in the snapshot, \[1\] here"
    ):
        make_manager(tmp_path, model=model, optimizers=only_weight).resume()


def test_resume_other_optimizer_class_raises_value_error(tmp_path: Path) -> None:
    """Adam would take the options of SGD for its own, and fail at its first step."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters())
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    run(make_manager(tmp_path, model=model, optimizers=optimizer), 2)
    with pytest.raises(ValueError, match=r"optimizers/main: .*another kind: .*momentum.*betas.* in Adam here"):
        make_manager(tmp_path, model=model, optimizers=torch.optim.Adam(model.parameters())).resume()
    assert make_manager(tmp_path, model=model, optimizers=torch.optim.SGD(model.parameters())).resume()


def test_resume_extension_mismatch_lists_names(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY), extensions.MicroAverage("a", "b", "c")), 2)
    with pytest.raises(ValueError, match=r"extensions: missing 'min_value'; extensions: unexpected 'MicroAverage'"):
        make_manager(tmp_path, extensions.snapshot(trigger=EVERY), extensions.MinValue("loss")).resume()


def test_resume_incompatible_trigger_state_raises_value_error(tmp_path: Path) -> None:
    def watch(trigger: Any) -> pte.ExtensionsManager:
        manager = make_manager(tmp_path)
        manager.extend(lambda manager: None, name="watch", trigger=trigger)
        return manager

    run(watch(triggers.TimeTrigger(1)), 2)
    manager = watch(triggers.MinValueTrigger("loss"))
    with pytest.raises(
        ValueError, match=r"trigger of 'watch', a MinValueTrigger here, .*KeyError: 'mean'.*another kind"
    ):
        manager.resume()


def test_resume_trigger_replacing_stateless_trigger_starts_fresh(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY)), 2)
    manager = make_manager(tmp_path, extensions.snapshot(trigger=triggers.MinValueTrigger("loss", EVERY)))
    assert manager.resume()
    run(manager, 3, {3: 2.0, 4: 3.0, 5: 1.0})
    assert [step for _, step in checkpoints(tmp_path)] == [1, 2, 3, 5]


@pytest.mark.parametrize(
    "first",
    [
        triggers.IntervalTrigger(2, "iteration"),
        triggers.EarlyStoppingTrigger(EVERY, "loss", max_trigger=(2, "iteration")),
        triggers.EarlyStoppingTrigger(EVERY, "loss", patience=1),
    ],
)
def test_resume_with_longer_stop_trigger_continues_training(tmp_path: Path, first: triggers.Trigger) -> None:
    run(make_manager(tmp_path, stop_trigger=first), 2)
    stop = triggers.EarlyStoppingTrigger(EVERY, "loss", patience=3, max_trigger=(5, "iteration"))
    manager = make_manager(tmp_path, stop_trigger=stop)
    assert manager.resume()
    assert not manager.stop_trigger
    run(manager, 3, {3: 0.3, 4: 0.2, 5: 0.1})
    assert manager.stop_trigger


def test_resume_stateless_extensions_may_be_added_and_removed(tmp_path: Path) -> None:
    """A bar that a job in a queue does not need is no reason to train again from the beginning."""
    manager = make_manager(tmp_path)
    manager.extend(extensions.ProgressBar(out=io.StringIO()))
    manager.extend(extensions.PrintReport(out=io.StringIO()))
    run(manager, 2)
    seen: list[int] = []
    manager = make_manager(tmp_path)
    manager.extend(lambda manager: seen.append(manager.iteration), name="new", trigger=EVERY)
    assert manager.resume()
    run(manager, 1)
    assert seen == [3]
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == [1, 2, 3]


def test_load_state_dict_newer_format_raises_value_error(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 2)
    state = torch.load(tmp_path / "snapshot_iter_2")
    with pytest.raises(ValueError, match="it has the format 99, this version of pte-tracking reads up to 1"):
        make_manager(tmp_path).load_state_dict(state | {"format": 99})


def test_resume_foreign_state_raises(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="'models' is missing"):
        make_manager(tmp_path / "out").resume(tmp_path / "model.pt")
    with pytest.raises(TypeError, match="expected a dictionary"):
        make_manager(tmp_path / "out").load_state_dict([])  # type: ignore[arg-type]


def test_resume_after_training_or_logging_started_raises_runtime_error(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with manager.run_iteration():
        pass
    with pytest.raises(RuntimeError, match="the training has already started"):
        manager.resume()
    manager.close()
    logged = make_manager(tmp_path)
    logged.run.log_params({"a": 1})
    with pytest.raises(RuntimeError, match="something was logged already; resume first"):
        logged.resume()
    logged.close()
