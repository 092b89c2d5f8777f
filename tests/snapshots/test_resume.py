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
from pte_tracking._store.journal import find
from pte_tracking.sinks import Connection, RunView, Sink

EVERY: Any = (1, "iteration")


def make(out: Path, *ours: Any, model: nn.Module | None = None, **options: Any) -> pte.ExtensionsManager:
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


def resumed(out: Path, what: Any = "latest", *ours: Any) -> tuple[int | None, float]:
    """The step gone on from, and a weight."""
    manager = make(out, *ours)
    weight = manager.models["main"].get_parameter("weight")
    weight.data.fill_(-1)
    checkpoint = manager.resume(what)
    assert manager.iteration == (0 if checkpoint is None else checkpoint.step)
    manager.close()
    return None if checkpoint is None else checkpoint.step, weight[0, 0].item()


def damage(path: Path) -> None:
    """Flip a bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def checkpoints(out: Path) -> list[tuple[str, int]]:
    return [(one.path, one.step) for one in pte.Run(out).checkpoints()]


# -- latest ------------------------------------------------------------------------------------------------------------


def test_where_there_is_nothing_it_begins(tmp_path: Path) -> None:
    assert resumed(tmp_path) == (None, -1)
    assert (tmp_path / "run.json").exists()


def test_the_newest_is_taken(tmp_path: Path) -> None:
    run(make(tmp_path), 11)
    assert resumed(tmp_path) == (11, 11)
    assert not (tmp_path / "previous").exists()


def test_the_newest_is_that_of_the_highest_step_whatever_the_times_of_files(tmp_path: Path) -> None:
    run(make(tmp_path), 11)
    shutil.copy(tmp_path / "snapshot_iter_4", tmp_path / "snapshot_iter_4.bak")
    shutil.copy(tmp_path / "snapshot_iter_3", tmp_path / "snapshot_iter_99")
    os.utime(tmp_path / "snapshot_iter_5")
    assert resumed(tmp_path) == (11, 11)


def test_without_a_snapshot_yet_the_same_run_begins_again(tmp_path: Path) -> None:
    rare = extensions.snapshot(trigger=(5, "iteration"))
    manager = make(tmp_path, rare, params={"lr": 1})
    run(manager, 3)
    again = make(tmp_path, extensions.snapshot(trigger=(5, "iteration")))
    assert again.resume() is None
    assert again.run.id == manager.run.id
    assert again.run.rows() == []
    run(again, 2)
    assert [row.step for row in again.run.rows()] == [1, 2]


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 3000)])
def test_a_damaged_one_is_passed_over_and_that_is_said(
    harm: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make(tmp_path), 5)
    harm(tmp_path / "snapshot_iter_5")
    (tmp_path / "snapshot_iter_4").unlink()
    assert resumed(tmp_path) == (3, 3)
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert "snapshot_iter_5" in said[0]
    assert "snapshot_iter_4: there is no such file" in said[1]
    assert "goes on from" in said[2]
    assert "snapshot_iter_3" in said[2]


def test_when_all_are_damaged_the_run_begins_again_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(make(tmp_path), 2)
    for name in ("snapshot_iter_1", "snapshot_iter_2"):
        (tmp_path / name).write_bytes(b"nothing")
    assert resumed(tmp_path) == (None, -1)
    assert "none of 2 snapshots is intact; the run begins again" in caplog.text


def unannounce(out: Path, step: int) -> None:
    """Cut the journal before the announcement of a snapshot, as a kill at that moment leaves it."""
    journal = out / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    (cut,) = (i for i, line in enumerate(lines) if b'"kind":"checkpoint"' in line and b'"step":%d,' % step in line)
    journal.write_bytes(b"".join(lines[:cut]))


def test_a_snapshot_that_was_published_but_not_announced_is_taken_up(tmp_path: Path) -> None:
    run(make(tmp_path, extensions.snapshot(trigger=EVERY, asynchronous=False)), 3, {3: 0.25})
    unannounce(tmp_path, 3)
    assert resumed(tmp_path) == (3, 3)
    newest = pte.Run(tmp_path).checkpoints()[-1]
    assert (newest.path, newest.step, newest.epoch, newest.values) == ("snapshot_iter_3", 3, 1.5, {"loss": 0.25})


def test_a_kill_while_resuming_loses_no_announcement(tmp_path: Path) -> None:
    """Going back takes back the announcement of the very snapshot gone back to; it is made again, if need be later."""
    best = {"trigger": EVERY, "keep_best": ("loss", "min", 2)}
    run(make(tmp_path, extensions.snapshot(**best)), 4, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
    state = torch.load(tmp_path / "snapshot_iter_4")
    killed = pte.Run(tmp_path)
    killed.open(at=state["run"])
    killed.close()
    assert ("snapshot_iter_4", 4) not in checkpoints(tmp_path)
    manager = make(tmp_path, extensions.snapshot(**best))
    resumed_from = manager.resume()
    assert resumed_from is not None
    assert resumed_from.step == 4
    run(manager, 1, {5: 5.0})
    assert checkpoints(tmp_path) == [("snapshot_iter_1", 1), ("snapshot_iter_2", 2), ("snapshot_iter_5", 5)]


def test_the_same_under_one_name_for_all(tmp_path: Path) -> None:
    def one_name() -> Any:
        return extensions.snapshot("newest", trigger=EVERY, asynchronous=False)

    run(make(tmp_path, one_name()), 3)
    assert checkpoints(tmp_path) == [("newest", 3)]
    unannounce(tmp_path, 3)
    assert checkpoints(tmp_path) == [("newest", 2)]
    assert resumed(tmp_path, "latest", one_name()) == (3, 3)
    assert checkpoints(tmp_path) == [("newest", 3)]


def test_what_was_left_behind_by_going_back_is_not_the_newest(tmp_path: Path) -> None:
    run(make(tmp_path), 5)
    back = make(tmp_path)
    back.resume(tmp_path / "snapshot_iter_2")
    assert [row.step for row in back.run.rows()] == [1, 2]
    back.close()
    assert (tmp_path / "snapshot_iter_5").exists()
    assert checkpoints(tmp_path) == [("snapshot_iter_1", 1), ("snapshot_iter_2", 2)]
    assert resumed(tmp_path) == (2, 2)


def test_but_it_can_still_be_asked_for(tmp_path: Path) -> None:
    run(make(tmp_path), 5)
    assert resumed(tmp_path, tmp_path / "snapshot_iter_2") == (2, 2)
    assert resumed(tmp_path, tmp_path / "snapshot_iter_4") == (4, 4)
    assert [row.step for row in pte.Run(tmp_path).rows()] == [1, 2, 3, 4]


def test_going_back_undoes_no_pruning(tmp_path: Path) -> None:
    def two() -> Any:
        return extensions.snapshot(trigger=EVERY, n_retains=2)

    run(make(tmp_path, two()), 5)
    assert resumed(tmp_path, "latest", two()) == (5, 5)
    assert checkpoints(tmp_path) == [("snapshot_iter_4", 4), ("snapshot_iter_5", 5)]
    manager = make(tmp_path, two())
    manager.resume()
    run(manager, 1)
    assert checkpoints(tmp_path) == [("snapshot_iter_5", 5), ("snapshot_iter_6", 6)]
    assert not (tmp_path / "snapshot_iter_4").exists()


def test_nothing_is_pruned_before_its_successor_is_announced(tmp_path: Path) -> None:
    run(make(tmp_path, extensions.snapshot(trigger=EVERY, n_retains=1)), 3)
    journal = tmp_path / "journal.jsonl"
    announced = {event.path: event.seq for event, _ in find(journal, Checkpoint)}
    removed = {event.path: event.seq for event, _ in find(journal, CheckpointRemoved)}
    assert announced["snapshot_iter_2"] < removed["snapshot_iter_1"]
    assert announced["snapshot_iter_3"] < removed["snapshot_iter_2"]


def test_a_finished_training_resumed_is_finished(tmp_path: Path) -> None:
    run(make(tmp_path), 20)
    manager = make(tmp_path)
    manager.resume()
    assert manager.stop_trigger
    assert list(manager.batches([1, 2])) == []


def test_more_epochs_go_on_after_the_last(tmp_path: Path) -> None:
    run(make(tmp_path), 20)
    longer = make(tmp_path, stop_trigger=(12, "epoch"))
    longer.resume()
    assert not longer.stop_trigger
    run(longer, 4)
    assert longer.stop_trigger


def test_autoload_resumes_when_the_training_begins(tmp_path: Path) -> None:
    run(make(tmp_path), 3)
    manager = make(tmp_path, extensions.snapshot(trigger=EVERY, autoload=True))
    assert manager.iteration == 0
    seen = []
    for _ in manager.batches([1, 2]):
        with manager.run_iteration():
            pte.report({"loss": 1})
        seen.append(manager.iteration)
    assert seen[0] == 4
    assert not (tmp_path / "previous").exists()


# -- best --------------------------------------------------------------------------------------------------------------


def keeping(mode: str, key: str = "loss") -> Any:
    return extensions.snapshot(trigger=EVERY, keep_best=(key, mode, 9))


def test_the_best_is_taken_by_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(make(tmp_path, keeping("min")), 4, {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan")})
    assert resumed(tmp_path, "best", keeping("max")) == (1, 1)
    shutil.rmtree(tmp_path)
    run(make(tmp_path, keeping("min")), 4, {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan")})
    damage(tmp_path / "snapshot_iter_2")
    assert resumed(tmp_path, "best", keeping("min")) == (3, 3)
    assert "snapshot_iter_2" in caplog.text


def test_what_is_best_has_to_be_said(tmp_path: Path) -> None:
    run(make(tmp_path), 2)
    with pytest.raises(ValueError, match=r"give the manager a snapshot\(keep_best="):
        make(tmp_path).resume("best")
    with pytest.raises(LookupError, match="no snapshot has a finite value of 'val/loss'; they have loss"):
        make(tmp_path, keeping("min", "val/loss")).resume("best")


def test_the_best_of_nothing_is_a_beginning(tmp_path: Path) -> None:
    assert resumed(tmp_path, "best", keeping("min")) == (None, -1)


# -- a file ------------------------------------------------------------------------------------------------------------


def test_a_file_is_taken_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(make(tmp_path / "result"), 4)
    monkeypatch.chdir(tmp_path)
    assert resumed(tmp_path / "result", "result/snapshot_iter_3") == (3, 3)
    assert resumed(tmp_path / "result", Path("result") / "snapshot_iter_2") == (2, 2)


@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda path: path.write_bytes(b"hello")])
def test_a_damaged_file_is_an_error_and_nothing_is_touched(harm: Any, tmp_path: Path) -> None:
    run(make(tmp_path), 3)
    harm(tmp_path / "snapshot_iter_3")
    before = (tmp_path / "journal.jsonl").read_bytes()
    with pytest.raises(SnapshotError, match="snapshot_iter_3: "):
        make(tmp_path).resume(tmp_path / "snapshot_iter_3")
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_copy_elsewhere_brings_its_run_with_it(tmp_path: Path) -> None:
    """Only the snapshot and the journal: what a backend stores of a run."""
    first = make(tmp_path / "first")
    run(first, 5)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("snapshot_iter_3", "journal.jsonl"):
        shutil.copy(tmp_path / "first" / name, copy)
    second = make(tmp_path / "second")
    checkpoint = second.resume(copy / "snapshot_iter_3")
    assert checkpoint is not None
    assert checkpoint.path == "snapshot_iter_3"
    assert second.run.id == first.run.id
    assert [row.step for row in second.run.rows()] == [1, 2, 3]
    run(second, 1)
    assert [row.step for row in second.run.rows()] == [1, 2, 3, 4]
    assert resumed(tmp_path / "second") == (4, 4)


def test_what_was_brought_is_there_for_the_next_resume(tmp_path: Path) -> None:
    run(make(tmp_path / "first"), 5)
    assert resumed(tmp_path / "second", tmp_path / "first" / "snapshot_iter_3") == (3, 3)
    shutil.rmtree(tmp_path / "first")
    assert resumed(tmp_path / "second") == (3, 3)


def test_another_run_in_the_directory_is_moved_aside(tmp_path: Path) -> None:
    run(make(tmp_path / "first"), 5)
    other = make(tmp_path / "second")
    run(other, 4)
    assert resumed(tmp_path / "second", tmp_path / "first" / "snapshot_iter_3") == (3, 3)
    aside = tmp_path / "second" / "previous" / other.run.id
    assert sorted(path.name for path in aside.glob("snapshot_*")) == [f"snapshot_iter_{i}" for i in (1, 2, 3, 4)]
    assert sorted(path.name for path in (tmp_path / "second").glob("snapshot_*")) == ["snapshot_iter_3"]


def test_one_saved_by_hand_goes_on_too(tmp_path: Path) -> None:
    manager = make(tmp_path)
    with manager.run_iteration():
        manager.models["main"].get_parameter("weight").data.fill_(1)
    torch.save(manager.state_dict(), tmp_path / "by_hand.pt")
    run(manager, 2)
    assert resumed(tmp_path, tmp_path / "by_hand.pt") == (1, 1)
    assert [row.step for row in pte.Run(tmp_path).rows()] == [1]


# -- a backend ---------------------------------------------------------------------------------------------------------


class Shelf(Sink):
    """Keeps checkpoints in folders."""

    name = "shelf"
    schemes = ("shelf",)
    where: ClassVar[Path]

    def fetch(self, uri: str, directory: Path) -> Path:
        assert list(directory.iterdir()) == []
        if uri != "shelf:/one":
            raise LookupError(f"{uri} is not on the shelf")
        for name in ("snapshot_iter_3", "journal.jsonl"):
            shutil.copy(self.where / name, directory)
        return directory / "snapshot_iter_3"

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        raise NotImplementedError


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Shelf.where = tmp_path / "shelf"
    run(make(Shelf.where), 5)
    installed = selection.get_sink
    monkeypatch.setattr(selection, "installed_sinks", lambda: ["json", "shelf"])
    monkeypatch.setattr(selection, "get_sink", lambda name: Shelf if name == "shelf" else installed(name))
    return Shelf.where


def test_a_tracked_checkpoint_is_fetched_onto_an_empty_machine(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert resumed(out, "shelf:/one") == (3, 3)
    assert [row.step for row in pte.Run(out).rows()] == [1, 2, 3]
    assert checkpoints(out)[-1] == ("snapshot_iter_3", 3)
    assert list(out.glob(".fetched*")) == []
    shutil.rmtree(shelf)
    assert resumed(out) == (3, 3)


def test_fetching_removes_nothing_from_the_backend(shelf: Path, tmp_path: Path) -> None:
    """Earlier checkpoints are not here, but there: they are not said to be gone."""
    assert resumed(tmp_path / "new", "shelf:/one") == (3, 3)
    assert [step for _, step in checkpoints(tmp_path / "new")] == [1, 2, 3]


def test_what_is_not_there_is_an_error(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="is not on the shelf"):
        make(tmp_path / "new").resume("shelf:/two")
    assert list((tmp_path / "new").glob(".fetched*")) == []
    with pytest.raises(ValueError, match="no installed sink knows drawer:; known are shelf"):
        make(tmp_path / "new").resume("drawer:/one")
    damage(shelf / "snapshot_iter_3")
    with pytest.raises(SnapshotError, match="damaged"):
        make(tmp_path / "new").resume("shelf:/one")
    assert list((tmp_path / "new").glob(".fetched*")) == []


# -- another training --------------------------------------------------------------------------------------------------


def test_other_shapes_are_named_and_nothing_is_restored(tmp_path: Path) -> None:
    run(make(tmp_path), 2)
    before = (tmp_path / "journal.jsonl").read_bytes()
    wider = nn.Linear(4, 2)
    weight = wider.weight.detach().clone()
    with pytest.raises(ValueError, match="models/main: 'weight' is 2x3 in the snapshot, 2x4 in the model") as caught:
        make(tmp_path, model=wider).resume()
    assert "bias" not in str(caught.value)
    assert torch.equal(wider.weight, weight)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_missing_and_unexpected_parameters_are_named(tmp_path: Path) -> None:
    run(make(tmp_path), 2)
    with pytest.raises(
        ValueError, match=r"(?s)'0\.weight' is missing in the snapshot.*'weight' is in the snapshot, not"
    ):
        make(tmp_path, model=nn.Sequential(nn.Linear(3, 2))).resume()


def test_other_optimizer_groups_are_named(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    run(make(tmp_path, model=model, optimizers=torch.optim.SGD(model.parameters())), 2)
    only_weight = torch.optim.SGD([model.weight])
    with pytest.raises(
        ValueError, match=r"optimizers/main: its groups have \[2\] parameters in the snapshot, \[1\] here"
    ):
        make(tmp_path, model=model, optimizers=only_weight).resume()


def test_another_kind_of_optimizer_is_named(tmp_path: Path) -> None:
    """Adam would take the options of SGD for its own, and fail at its first step."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters())
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    run(make(tmp_path, model=model, optimizers=optimizer), 2)
    with pytest.raises(ValueError, match=r"optimizers/main: .*another kind: .*momentum.*betas.* in Adam here"):
        make(tmp_path, model=model, optimizers=torch.optim.Adam(model.parameters())).resume()
    assert make(tmp_path, model=model, optimizers=torch.optim.SGD(model.parameters())).resume()


def test_other_extensions_are_named_one_by_one(tmp_path: Path) -> None:
    run(make(tmp_path, extensions.snapshot(trigger=EVERY), extensions.MicroAverage("a", "b", "c")), 2)
    with pytest.raises(ValueError, match=r"extensions: missing 'min_value'; extensions: unexpected 'MicroAverage'"):
        make(tmp_path, extensions.snapshot(trigger=EVERY), extensions.MinValue("loss")).resume()


def test_an_extension_that_cannot_take_its_state_is_named(tmp_path: Path) -> None:
    def watch(trigger: Any) -> pte.ExtensionsManager:
        manager = make(tmp_path)
        manager.extend(lambda manager: None, name="watch", trigger=trigger)
        return manager

    run(watch(triggers.TimeTrigger(1)), 2)
    manager = watch(triggers.MinValueTrigger("loss"))
    with pytest.raises(
        ValueError, match=r"trigger of 'watch', a MinValueTrigger here, .*KeyError: 'mean'.*another kind"
    ):
        manager.resume()


def test_a_trigger_in_place_of_one_without_a_state_begins_anew(tmp_path: Path) -> None:
    run(make(tmp_path, extensions.snapshot(trigger=EVERY)), 2)
    manager = make(tmp_path, extensions.snapshot(trigger=triggers.MinValueTrigger("loss", EVERY)))
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
def test_a_training_goes_on_with_more_patience_or_for_longer(tmp_path: Path, first: triggers.Trigger) -> None:
    run(make(tmp_path, stop_trigger=first), 2)
    stop = triggers.EarlyStoppingTrigger(EVERY, "loss", patience=3, max_trigger=(5, "iteration"))
    manager = make(tmp_path, stop_trigger=stop)
    assert manager.resume()
    assert not manager.stop_trigger
    run(manager, 3, {3: 0.3, 4: 0.2, 5: 0.1})
    assert manager.stop_trigger


def test_extensions_without_a_state_come_and_go(tmp_path: Path) -> None:
    """A bar that a job in a queue does not need is no reason to train again from the beginning."""
    manager = make(tmp_path)
    manager.extend(extensions.ProgressBar(out=io.StringIO()))
    manager.extend(extensions.PrintReport(out=io.StringIO()))
    run(manager, 2)
    seen: list[int] = []
    manager = make(tmp_path)
    manager.extend(lambda manager: seen.append(manager.iteration), name="new", trigger=EVERY)
    assert manager.resume()
    run(manager, 1)
    assert seen == [3]
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == [1, 2, 3]


def test_a_state_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    run(make(tmp_path), 2)
    state = torch.load(tmp_path / "snapshot_iter_2")
    with pytest.raises(ValueError, match="it has the format 99, this version of pte-tracking reads up to 1"):
        make(tmp_path).load_state_dict(state | {"format": 99})


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="'models' is missing"):
        make(tmp_path / "out").resume(tmp_path / "model.pt")
    with pytest.raises(TypeError, match="expected a dictionary"):
        make(tmp_path / "out").load_state_dict([])  # type: ignore[arg-type]


def test_it_is_too_late_once_the_training_has_begun(tmp_path: Path) -> None:
    manager = make(tmp_path)
    with manager.run_iteration():
        pass
    with pytest.raises(RuntimeError, match="the training has begun"):
        manager.resume()
    manager.close()
    logged = make(tmp_path)
    logged.run.log_params({"a": 1})
    with pytest.raises(RuntimeError, match="something was logged already; resume first"):
        logged.resume()
    logged.close()
