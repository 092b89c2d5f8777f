"""Triggers, names, and retention of snapshot extensions."""

import math
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._snapshots.retention import BestPolicy, prunable
from pte_tracking._store.events import Checkpoint
from tests.snapshots.weight_training import EVERY, list_files, make_manager, run, weight

# -- trigger and content -----------------------------------------------------------------------------------------------


def test_snapshot_default_saves_complete_state_each_epoch(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot()), 5)
    assert list_files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_4"]
    state = torch.load(tmp_path / "snapshot_iter_4")
    parts = {"models", "optimizers", "extensions", "state_objects", "manager", "rng", "run", "values"}
    assert set(state) == {"format", "environment", "given", "gradients", "parameters", *parts}
    fresh = nn.Linear(3, 2)
    fresh.load_state_dict(state["models"]["main"])
    assert fresh.bias.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("filename", "names"),
    [
        ("snapshot_iter_{.iteration}", ["snapshot_iter_1", "snapshot_iter_2"]),
        ("{.updater.iteration:04d}.pt", ["0001.pt", "0002.pt"]),
        ("at_{0.epoch_detail}_{0.iteration}", ["at_0.5_1", "at_1.0_2"]),
        ("newest", ["newest"]),
    ],
)
def test_snapshot_filename_template_names_file(filename: str, names: list[str], tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(filename, trigger=EVERY)), 2)
    assert list_files(tmp_path) == names
    assert weight(tmp_path / names[-1]) == 2


def test_snapshot_filename_with_folder_creates_folder(tmp_path: Path) -> None:
    manager = run(make_manager(tmp_path, extensions.snapshot("saved/{.iteration}", trigger=EVERY, n_retains=1)), 3)
    assert list_files(tmp_path) == ["saved"]
    assert os.listdir(tmp_path / "saved") == ["3"]
    assert [entry.path for entry in manager.run.checkpoints()] == ["saved/3"]


def test_snapshot_condition_false_skips_snapshot(tmp_path: Path) -> None:
    conditions = iter([True, False, True])
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, condition=lambda: next(conditions))), 3)
    assert list_files(tmp_path) == ["snapshot_iter_1", "snapshot_iter_3"]


def test_snapshot_registers_checkpoint_with_metrics_of_its_step(tmp_path: Path) -> None:
    observed = extensions.observe_value("learned", lambda manager: 7)
    manager = make_manager(tmp_path, extensions.snapshot(), observed)
    run(manager, 4, lambda i: {"loss": torch.tensor(1 / i), "bad": math.nan if i == 4 else 0})
    first, second = manager.run.checkpoints()
    assert (first.path, first.step, first.epoch) == ("snapshot_iter_2", 2, 1)
    assert first.values == {"loss": 0.5, "bad": 0, "learned": 7}
    assert second.values["loss"] == 0.25
    assert math.isnan(second.values["bad"])
    assert second.size == (tmp_path / "snapshot_iter_4").stat().st_size


def test_snapshot_runs_after_other_extensions_and_stop_trigger(tmp_path: Path) -> None:
    iterations = []

    class Last(pte.Extension):
        priority = -50
        trigger = (1, "iteration")

        def __call__(self, manager: pte.Manager) -> None:
            iterations.append(manager.iteration)

        def state_dict(self) -> dict[str, Any]:
            return {"iterations": list(iterations)}

    stop = pte.get_trigger((3, "iteration"))
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY), Last(), stop_trigger=stop), 3)
    state = torch.load(tmp_path / "snapshot_iter_3")
    assert state["extensions"]["Last"]["extension"] == {"iterations": [1, 2, 3]}
    assert state["manager"]["is_over"]


# -- retention ---------------------------------------------------------------------------------------------------------


def test_n_retains_keeps_newest_snapshots(tmp_path: Path) -> None:
    manager = run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY, n_retains=2)), 12)
    assert list_files(tmp_path) == ["snapshot_iter_11", "snapshot_iter_12"]
    assert [entry.path for entry in manager.run.checkpoints()] == ["snapshot_iter_11", "snapshot_iter_12"]


def test_n_retains_ignores_file_times(tmp_path: Path) -> None:
    saved = extensions.snapshot(trigger=EVERY, n_retains=2, asynchronous=False)
    touch_first = pte.make_extension(trigger=EVERY, priority=-200)(
        lambda manager: os.utime(tmp_path / "snapshot_iter_1") if manager.iteration < 3 else None
    )
    run(make_manager(tmp_path, saved, touch_first), 4)
    assert list_files(tmp_path) == ["snapshot_iter_3", "snapshot_iter_4"]


def test_keep_best_keeps_best_and_newest_snapshots(tmp_path: Path) -> None:
    losses = [5, 1, math.nan, 3, 2, math.inf, 4, 6]
    saved = extensions.snapshot(trigger=EVERY, keep_best=("loss", "min", 2))
    run(make_manager(tmp_path, saved), 8, lambda i: {"loss": losses[i - 1]})
    assert list_files(tmp_path) == ["snapshot_iter_2", "snapshot_iter_5", "snapshot_iter_8"]


def test_keep_best_compares_means_over_the_interval(tmp_path: Path) -> None:
    losses = [1, (9, 2), 7, 3, 8, 4]  # the means are 19/3, 5, and 6
    saved = extensions.snapshot(n_retains=1, keep_best=("loss", "min", 1))
    manager = run(make_manager(tmp_path, saved), 6, lambda i: {"loss": losses[i - 1], "last": i})
    assert [(entry.step, entry.values) for entry in manager.run.checkpoints()] == [
        (4, {"loss": 5.0, "last": 4}),
        (6, {"loss": 6.0, "last": 6}),
    ]


def test_keep_best_mean_continues_after_a_resume_within_the_interval(tmp_path: Path) -> None:
    def make() -> pte.ExtensionsManager:
        every = extensions.snapshot("every_{.iteration}", trigger=EVERY)
        best = extensions.snapshot("best_{.iteration}", trigger=(4, "iteration"), keep_best=("loss", "min", 1))
        return make_manager(tmp_path, every, best)

    run(make(), 3, lambda i: {"loss": float(i)})
    manager = make()
    manager.load_state_dict(torch.load(tmp_path / "every_3"))
    run(manager, 1, lambda i: {"loss": 10.0})
    (checkpoint,) = (entry for entry in manager.run.checkpoints() if entry.path == "best_4")
    assert checkpoint.values == {"loss": 4.0}


def test_keep_best_mean_starts_again_after_a_resume_from_another_snapshot_of_the_same_iteration(tmp_path: Path) -> None:
    trigger = (2, "iteration")

    def make() -> pte.ExtensionsManager:
        every = extensions.snapshot("every_{.iteration}", trigger=trigger)
        best = extensions.snapshot("best_{.iteration}", trigger=trigger, keep_best=("loss", "min", 1))
        return make_manager(tmp_path, every, best)

    run(make(), 2, lambda i: {"loss": float(i)})
    manager = make()
    manager.load_state_dict(torch.load(tmp_path / "every_2"))
    run(manager, 2, lambda i: {"loss": 10.0})
    (checkpoint,) = (entry for entry in manager.run.checkpoints() if entry.path == "best_4")
    assert checkpoint.values == {"loss": 10.0}


def test_snapshot_calls_deferred_values_on_the_training_thread(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []

    def compute() -> float:
        threads.append(threading.current_thread())
        return 5.0

    manager = run(make_manager(tmp_path, extensions.snapshot()), 2, lambda i: {"x": compute})
    assert [entry.values for entry in manager.run.checkpoints()] == [{"x": 5.0}]
    assert threads == [threading.main_thread()] * 2


def test_keep_best_ignores_intervals_without_the_metric(tmp_path: Path) -> None:
    values = {2: 0.5, 4: 0.9, 6: 0.8, 8: 0.7}

    def make() -> pte.ExtensionsManager:
        evaluate = pte.make_extension(trigger=(2, "epoch"), priority=pte.PRIORITY_WRITER)(
            lambda manager: pte.report({"val": values[manager.epoch]})
        )
        saved = extensions.snapshot(n_retains=1, keep_best=("val", "max", 2))
        return make_manager(tmp_path, evaluate, saved)

    run(make(), 10)
    manager = make()
    manager.resume()
    run(manager, 6)
    assert [entry.step for entry in manager.run.checkpoints()] == [8, 12, 16]
    checkpoint = make().resume("best")
    assert checkpoint is not None
    assert checkpoint.step == 8


@pytest.mark.parametrize(
    ("reported", "logged", "saved_before"),
    [
        ("val/accurcy", [], 1),  # resembles a reported key: at the first snapshot
        ("val_accuracy", [], 1),
        ("other", [], 3),  # after the first epoch, at a second snapshot
        ("val/accuracy", [], None),
        ("other", ["val/accuracy"], None),
    ],
)
def test_keep_best_unknown_metric_warns_once_and_early(
    reported: str, logged: list[str], saved_before: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = extensions.snapshot(trigger=EVERY, keep_best=("val/accuracy", "max", 2), asynchronous=False)
    manager = make_manager(tmp_path, saved)
    counts: list[int] = []

    def values_of(iteration: int) -> dict[str, float]:
        counts.append(caplog.text.count("no value of 'val/accuracy' was reported or logged so far"))
        manager.run.log_metrics(dict.fromkeys(logged, 1.0), manager.iteration)
        return {reported: 1.0}

    run(manager, 5, values_of)
    assert counts == [0] * 5 if saved_before is None else [0] * saved_before + [1] * (5 - saved_before)
    assert caplog.text.count("keep_best") == (saved_before is not None)


@pytest.mark.parametrize(("values", "is_known"), [({"loss": math.nan}, True), ({"other": 1.0}, False)])
def test_keep_best_without_ranked_snapshot_names_the_cause_at_end(
    values: dict[str, float], is_known: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = extensions.snapshot(trigger=(1, "epoch"), keep_best=("loss", "min", 2))
    run(make_manager(tmp_path, saved), 2, lambda i: values)
    assert ("none of the kept snapshots (1) has a finite value of 'loss'." in caplog.text) is is_known
    assert ("no value of 'loss' was reported or logged so far" in caplog.text) is not is_known


def test_n_retains_keeps_files_of_other_extensions(tmp_path: Path) -> None:
    few = extensions.snapshot(trigger=EVERY, n_retains=1)
    others = extensions.snapshot("other_{.iteration}", trigger=(2, "iteration"))
    manager = make_manager(tmp_path, few, others)
    manager.extend(lambda _: tmp_path.joinpath("snapshot_iter_0.bak").touch(), trigger=EVERY, name="backup")
    run(manager, 5)
    assert list_files(tmp_path) == ["other_2", "other_4", "snapshot_iter_0.bak", "snapshot_iter_5"]


def make_checkpoint(step: int, **values: float) -> Checkpoint:
    return Checkpoint(seq=step, time=0.0, path=f"s{step}", step=step, sha256="", size=0, values=values)


def test_prunable_never_includes_newest_checkpoint() -> None:
    ten = [make_checkpoint(step, loss=step) for step in range(10)]
    for n_retains in (-1, 0, 1, 3, 20):
        for best in (None, BestPolicy("loss", "min", 2), BestPolicy("loss", "max", 1), BestPolicy("other", "max", 1)):
            retained = [entry for entry in ten if entry not in prunable(ten, n_retains, best)]
            assert retained[-1] is ten[-1]
    assert prunable(ten, -1, None) == []
    assert prunable([], 1, BestPolicy("loss", "min", 1)) == []
    assert [entry.step for entry in ten if entry not in prunable(ten, 2, BestPolicy("loss", "min", 2))] == [0, 1, 8, 9]


# -- object ------------------------------------------------------------------------------------------------------------


def test_snapshot_object_saves_state_without_checkpoint(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    manager.extend(extensions.snapshot_object(manager.models["main"], "model_{.iteration}", n_retains=1))
    run(manager, 4)
    assert list_files(tmp_path) == ["model_4"]
    nn.Linear(3, 2).load_state_dict(torch.load(tmp_path / "model_4"))
    assert manager.run.checkpoints() == [], "an object is not a checkpoint"


def test_snapshot_target_saves_only_that_object(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    run(make_manager(tmp_path, extensions.snapshot(target=model, filename="model")), 2)
    assert torch.load(tmp_path / "model").keys() == {"weight", "bias"}


def test_snapshot_object_autoload_selects_newest_intact_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (2, 9, 10, 11):
        torch.save({"weight": torch.full((1, 1), float(number)), "bias": torch.zeros(1)}, tmp_path / f"model_{number}")
    (tmp_path / "model_10.bak").write_bytes((tmp_path / "model_2").read_bytes())
    (tmp_path / "model_11").write_bytes((tmp_path / "model_11").read_bytes()[:-100])
    os.utime(tmp_path / "model_9")
    model = nn.Linear(1, 1)
    saved = extensions.snapshot_object(model, "model_{.iteration}", trigger=(99, "epoch"), autoload=True)
    run(make_manager(tmp_path, saved), 1)
    assert model.weight.item() == 10
    assert "model_11" in caplog.text


def test_snapshot_object_dict_target_saves_and_loads_one_file(tmp_path: Path) -> None:
    first, second = nn.Linear(1, 1), nn.Linear(2, 2)
    targets = {"first": first, "second": second}
    run(make_manager(tmp_path, extensions.snapshot_object(targets, "both_{.iteration}")), 2)
    saved = torch.load(tmp_path / "both_2")
    assert {name: part.keys() for name, part in saved.items()} == {name: {"weight", "bias"} for name in targets}
    fresh = {"first": nn.Linear(1, 1), "second": nn.Linear(2, 2)}
    loads = extensions.snapshot_object(fresh, "both_{.iteration}", trigger=(99, "epoch"), autoload=True)
    manager = make_manager(tmp_path / "loaded", loads)
    (tmp_path / "loaded").mkdir()
    (tmp_path / "both_2").rename(tmp_path / "loaded" / "both_2")
    run(manager, 1)
    for name, part in targets.items():
        assert torch.equal(fresh[name].weight, part.weight)
    with pytest.raises(TypeError, match="target: expected an object with"):
        extensions.snapshot_object({"first": first, "second": 3}, "both")  # type: ignore[dict-item]
