"""Snapshots of a different training."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, triggers
from tests.snapshots.resume_training import EVERY, checkpoints, make_manager, run


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
        ValueError, match=r"(?s)'0\.weight' is missing from the snapshot.*'weight' is in the snapshot but not"
    ):
        make_manager(tmp_path, model=nn.Sequential(nn.Linear(3, 2))).resume()


def test_resume_optimizer_group_mismatch_raises_value_error(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    run(make_manager(tmp_path, model=model, optimizers=torch.optim.SGD(model.parameters())), 2)
    only_weight = torch.optim.SGD([model.weight])
    with pytest.raises(
        ValueError, match=r"optimizers/main: group sizes are \[2\] in the snapshot, \[1\] in the optimizer"
    ):
        make_manager(tmp_path, model=model, optimizers=only_weight).resume()


def test_resume_other_optimizer_class_raises_value_error(tmp_path: Path) -> None:
    """Adam would accept the groups of SGD and fail in its first step."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters())
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    run(make_manager(tmp_path, model=model, optimizers=optimizer), 2)
    with pytest.raises(ValueError, match=r"optimizers/main: .*class SGD in the snapshot, of class Adam now"):
        make_manager(tmp_path, model=model, optimizers=torch.optim.Adam(model.parameters())).resume()
    assert make_manager(tmp_path, model=model, optimizers=torch.optim.SGD(model.parameters())).resume()


def test_resume_extension_mismatch_lists_names(tmp_path: Path) -> None:
    run(make_manager(tmp_path, extensions.snapshot(trigger=EVERY), extensions.MicroAverage("a", "b", "c")), 2)
    with pytest.raises(
        ValueError,
        match=r"extensions: not in the snapshot: 'min_value'; extensions: only in the snapshot: 'MicroAverage'",
    ):
        make_manager(tmp_path, extensions.snapshot(trigger=EVERY), extensions.MinValue("loss")).resume()


def test_resume_with_another_class_of_trigger_reports_it_and_starts_the_new_one(tmp_path: Path, caplog: Any) -> None:
    def watch(trigger: Any) -> pte.ExtensionsManager:
        manager = make_manager(tmp_path)
        manager.extend(lambda manager: None, name="watch", trigger=trigger)
        return manager

    run(watch(triggers.TimeTrigger(1)), 2)
    manager = watch(triggers.MinValueTrigger("loss"))
    caplog.clear()
    assert manager.resume()
    assert "trigger of 'watch' starts as constructed. The trigger of 'watch' is of type TimeTrigger in" in caplog.text


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
    """A batch job, for example, does not need the progress bar of an interactive training."""
    manager = make_manager(tmp_path)
    manager.extend(extensions.ProgressBar(out=io.StringIO()))
    manager.extend(extensions.PrintReport(out=io.StringIO()))
    run(manager, 2)
    iterations: list[int] = []
    manager = make_manager(tmp_path)
    manager.extend(lambda manager: iterations.append(manager.iteration), name="new", trigger=EVERY)
    assert manager.resume()
    run(manager, 1)
    assert iterations == [3]
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == [1, 2, 3]


def test_load_state_dict_newer_format_raises_value_error(tmp_path: Path) -> None:
    run(make_manager(tmp_path), 2)
    state = torch.load(tmp_path / "snapshot_iter_2")
    with pytest.raises(ValueError, match=r"format 99 is not supported.*reads formats up to 1\."):
        make_manager(tmp_path).load_state_dict(state | {"format": 99})


def test_resume_foreign_state_raises(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"not that of a training\. It contains 'weight', 'bias'\."):
        make_manager(tmp_path / "out").resume(tmp_path / "model.pt")
    with pytest.raises(TypeError, match="expected a dictionary"):
        make_manager(tmp_path / "out").load_state_dict([])  # type: ignore[arg-type]


def test_second_resume_raises_runtime_error_that_names_the_first(tmp_path: Path) -> None:
    state = make_manager(tmp_path / "other").state_dict()
    make: list[Callable[[Any], object]] = [
        lambda manager: manager.load_state_dict(state),
        lambda manager: manager.resume(),
    ]
    for number, restore in enumerate(make):
        manager = make_manager(tmp_path / str(number))
        restore(manager)
        with pytest.raises(RuntimeError, match=r"resume\(\): an earlier call .* iteration 0"):
            manager.resume()
        manager.close()


def test_resume_after_training_started_or_run_was_opened_raises_runtime_error(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with manager.run_iteration():
        pass
    with pytest.raises(RuntimeError, match="the training has already started"):
        manager.resume()
    manager.close()
    opened = make_manager(tmp_path)
    opened.run.open()
    with pytest.raises(RuntimeError, match=r"already open. Call resume\(\) before run.open\(\)"):
        opened.resume()
    opened.close()
