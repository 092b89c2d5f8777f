"""Stop triggers together with ``max_epochs``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions, triggers


def make(directory: Path, max_epochs: float, trigger: Any, *entries: Any) -> pte.ExtensionsManager:
    options: Any = {"iters_per_epoch": 2, "out_dir": directory, "sinks": []}
    return pte.ExtensionsManager(nn.Linear(1, 1), max_epochs, entries, stop_trigger=trigger, **options)


def train(manager: pte.ExtensionsManager, losses: Any = None) -> int:
    while not manager.stop_trigger and manager.iteration < 60:
        with manager.run_iteration():
            pte.report({"loss": 1 / (1 + manager.iteration) if losses is None else losses(manager.iteration)})
    return manager.iteration


@pytest.mark.parametrize(
    "trigger",
    [
        triggers.EarlyStoppingTrigger(monitor="loss"),
        triggers.EarlyStoppingTrigger(monitor="loss", max_trigger=(9, "epoch")),
        triggers.EarlyStoppingTrigger(monitor="loss", max_trigger=(30, "iteration")),
        triggers.TimeTrigger(3600),
        triggers.MaxValueTrigger("missing"),
        lambda manager: manager.iteration == 40,
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_stop_trigger_without_a_reason_stops_after_max_epochs(tmp_path: Path, trigger: Any) -> None:
    manager = make(tmp_path, 5, trigger)
    assert (manager.training_length, manager.length_in_iterations) == ((5, "epoch"), 10)
    assert train(manager) == 10
    assert manager.is_ended


def test_stop_trigger_with_a_reason_stops_before_max_epochs(tmp_path: Path) -> None:
    stop = triggers.EarlyStoppingTrigger(monitor="loss", patience=2)
    assert train(make(tmp_path / "a", 20, stop), lambda iteration: 1.0) == 6
    assert train(make(tmp_path / "b", 20, lambda manager: manager.iteration == 7)) == 7
    longest = triggers.EarlyStoppingTrigger(monitor="loss", max_trigger=(3, "iteration"))
    manager = make(tmp_path / "c", 20, longest)
    assert (manager.training_length, train(manager)) == ((3, "iteration"), 3)


def test_stop_trigger_that_is_a_length_decides_over_max_epochs(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        assert train(make(tmp_path / "a", 1, (7, "iteration"), extensions.LogReport())) == 7
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        assert train(make(tmp_path / "b", 1, (3, "epoch"), extensions.LogReport())) == 6
    (message,) = caplog.messages
    assert message.startswith("max_epochs=1 has no effect, because stop_trigger=(3, 'epoch') sets the length")


@pytest.mark.parametrize(
    "make_trigger", [lambda: triggers.EarlyStoppingTrigger(monitor="loss"), lambda: lambda _: False]
)
def test_resume_with_more_epochs_continues_after_the_limit_of_a_stop_trigger(tmp_path: Path, make_trigger: Any) -> None:
    assert train(make(tmp_path, 2, make_trigger(), extensions.snapshot())) == 4
    manager = make(tmp_path, 3, make_trigger(), extensions.snapshot())
    manager.resume()
    assert (manager.stop_trigger, train(manager)) == (False, 6)


def test_resume_after_early_stopping_with_more_epochs_remains_stopped(tmp_path: Path) -> None:
    def make_stop(patience: int = 1) -> Any:
        return triggers.EarlyStoppingTrigger(monitor="loss", patience=patience)

    assert train(make(tmp_path, 5, make_stop(), extensions.snapshot()), lambda _: 1.0) == 4
    manager = make(tmp_path, 50, make_stop(), extensions.snapshot())
    manager.resume()
    assert manager.stop_trigger
    manager = make(tmp_path, 50, make_stop(3), extensions.snapshot())
    manager.resume()
    assert train(manager, lambda _: 1.0) == 8


def test_resume_with_another_metric_of_the_stop_trigger_is_refused_unless_allowed(tmp_path: Path) -> None:
    train(make(tmp_path, 2, triggers.EarlyStoppingTrigger(monitor="loss"), extensions.snapshot()))
    for trigger, match in (
        (triggers.EarlyStoppingTrigger(monitor="error"), "the stop trigger, .*metric 'loss', but.*'error' now"),
        (triggers.EarlyStoppingTrigger(monitor="loss", mode="max"), "mode 'min', but the mode is 'max' now"),
    ):
        manager = make(tmp_path, 3, trigger, extensions.snapshot())
        with pytest.raises(ValueError, match=match):
            manager.resume()
        assert manager.resume(allow=["stop_trigger"]) is not None
        manager.run.close()


def test_resume_with_another_class_of_stop_trigger_reports_it_and_starts_the_new_one(
    tmp_path: Path, caplog: Any
) -> None:
    train(make(tmp_path, 2, triggers.EarlyStoppingTrigger(monitor="loss"), extensions.snapshot()))
    manager = make(tmp_path, 3, None, extensions.snapshot())
    with caplog.at_level(logging.WARNING):
        manager.resume()
    assert caplog.messages == [
        "resume: the stop trigger starts as constructed. The stop trigger is of type EarlyStoppingTrigger in the "
        "snapshot and of type IntervalTrigger now."
    ]
    assert train(manager) == 6


def test_max_epochs_beyond_the_length_of_early_stopping_warns(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        make(tmp_path, 150, triggers.EarlyStoppingTrigger(monitor="loss"))
    (message,) = caplog.messages
    assert message == (
        "max_epochs=150 has no effect, because the stop trigger ends the training after 100 epochs. Pass "
        "max_trigger=(150, 'epoch') to it."
    )


def test_improvement_below_min_delta_counts_as_none(tmp_path: Path, caplog: Any) -> None:
    stop = triggers.EarlyStoppingTrigger(monitor="loss", patience=2, min_delta=0.1)
    with caplog.at_level(logging.INFO):
        assert train(make(tmp_path, 20, stop), lambda iteration: 1 - iteration / 100) == 6
    assert any(
        message.startswith("Early stopping after epoch 3. Best loss (mode 'min'): 0.995") for message in caplog.messages
    )
