"""Extensions, triggers, and schedulers that are used twice in one training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, triggers

ITERATION = (1, "iteration")


class EveryOther(pte.Trigger):
    """Trigger of a user that counts its evaluations."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, manager: pte.Manager) -> bool:
        self.count += 1
        return self.count % 2 == 0


class Counter:
    """The same as a callable object that is not a trigger."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, manager: pte.Manager) -> bool:
        self.count += 1
        return self.count % 2 == 0


def make(*entries: Any, **options: Any) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({}, 1, entries, iters_per_epoch=4, sinks=[], **options)


def note(name: str, trigger: Any) -> pte.ExtensionEntry:
    return pte.ExtensionEntry(lambda manager: None, name=name, trigger=trigger)


@pytest.mark.parametrize(
    "trigger",
    [
        triggers.MaxValueTrigger("acc"),
        triggers.OnceTrigger(),
        triggers.TimeTrigger(1),
        triggers.EarlyStoppingTrigger(),
        EveryOther(),
        Counter(),
        triggers.FunctionTrigger(lambda: True, trigger=triggers.OnceTrigger()),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_trigger_with_a_state_in_two_places_is_refused_and_names_both(tmp_path: Path, trigger: Any) -> None:
    with pytest.raises(ValueError, match=r"already the trigger of the extension 'a'.* of the extension 'b'\. Create"):
        make(note("a", trigger), note("b", trigger), out_dir=tmp_path)
    with pytest.raises(ValueError, match="already the trigger of the training, as stop_trigger"):
        make(note("b", trigger), stop_trigger=trigger, out_dir=tmp_path)
    with pytest.raises(ValueError, match="already the trigger of the extension 'LogReport'"):
        make(extensions.LogReport(trigger=trigger), extensions.MinValue("x", trigger), out_dir=tmp_path)
    make(note("a", trigger), out_dir=tmp_path)


@pytest.mark.parametrize(
    "trigger",
    [
        triggers.IntervalTrigger(2, "iteration"),
        triggers.ManualScheduleTrigger([1, 3], "iteration"),
        triggers.FunctionTrigger(lambda: True),
        lambda manager: manager.iteration == 2,
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_trigger_without_a_state_works_in_two_places(tmp_path: Path, trigger: Any) -> None:
    runs: dict[str, list[int]] = {"a": [], "b": []}
    manager = make(out_dir=tmp_path)
    for name, iterations in runs.items():
        manager.extend(lambda manager, seen=iterations: seen.append(manager.iteration), name=name, trigger=trigger)
    while not manager.stop_trigger:
        with manager.run_iteration():
            pass
    assert runs["a"]
    assert runs["a"] == runs["b"]


def test_extension_registered_twice_is_refused_and_names_the_first(tmp_path: Path) -> None:
    best = extensions.MaxValue("x")
    manager = make(best, out_dir=tmp_path)
    with pytest.raises(ValueError, match=r"this MaxValue is already registered as 'max_value'\. Create another object"):
        manager.extend(best, name="other")
    assert best.name == "max_value"


def test_extension_of_an_earlier_manager_is_accepted(tmp_path: Path) -> None:
    best = extensions.MaxValue("x")
    for number in range(2):
        make(best, out_dir=tmp_path / str(number))


def test_scheduler_of_an_extension_and_a_state_object_resumes(tmp_path: Path) -> None:
    def train(epochs: int) -> list[float]:
        rates = []
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        manager = pte.ExtensionsManager(
            model,
            epochs,
            [extensions.LRScheduler(scheduler, trigger=ITERATION), extensions.snapshot()],
            optimizers=optimizer,
            state_objects={"scheduler": scheduler, "again": scheduler},
            iters_per_epoch=2,
            out_dir=tmp_path,
            sinks=[],
        )
        manager.resume()
        while not manager.stop_trigger:
            with manager.run_iteration():
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
        return rates

    assert train(1) == [0.1, 0.05]
    assert train(2) == [0.025, 0.0125]
