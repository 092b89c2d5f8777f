"""Ratios of sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pte_tracking as pte
from pte_tracking.extensions import LogReport, MicroAverage
from tests.engine.test_reporter import DistantTensor, distant

ThroughAFile = Callable[[dict[str, Any]], dict[str, Any]]
RIGHT, ALL = [3, 1, 7, 2, 5, 0, 4, 1, 6], [7, 9, 7, 3, 11, 2, 4, 5, 6]


def manager_of(out: Path, *more: Any) -> pte.ExtensionsManager:
    average = MicroAverage("right", "all", "accuracy", (3, "iteration"))
    return pte.ExtensionsManager({}, 100, [*more, average], iters_per_epoch=5, out_dir=out, sinks=[])


def train(manager: pte.ExtensionsManager, until: int) -> list[Any]:
    seen = []
    while manager.iteration < until:
        with manager.run_iteration():
            pte.report({"right": np.int64(RIGHT[manager.iteration]), "all": np.float32(ALL[manager.iteration])})
        seen.append(manager.observation.get("accuracy"))
    return seen


def ratio(start: int) -> float:
    return sum(RIGHT[start : start + 3]) / sum(ALL[start : start + 3])


def test_the_ratio_of_sums_is_reported_at_the_end_of_an_interval(tmp_path: Path) -> None:
    seen = train(manager_of(tmp_path), 9)
    assert seen == [None, None, ratio(0), None, None, ratio(3), None, None, ratio(6)]


def test_the_log_of_the_same_iteration_has_it(tmp_path: Path) -> None:
    log = LogReport(["accuracy"], trigger=(3, "iteration"))
    train(manager_of(tmp_path, log), 9)
    assert [row["accuracy"] for row in log.log] == [ratio(0), ratio(3), ratio(6)]


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_resumed_average_is_that_of_an_uninterrupted_training(
    tmp_path: Path, cut: int, through_a_file: ThroughAFile
) -> None:
    killed = manager_of(tmp_path)
    first = train(killed, cut)
    state = through_a_file(killed.state_dict())
    killed.close("KILLED")
    resumed = manager_of(tmp_path)
    resumed.load_state_dict(state)
    assert first + train(resumed, 9) == train(manager_of(tmp_path / "whole"), 9)


def test_iterations_without_both_values_do_not_count(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    for values in ({"right": 1, "all": 2}, {"right": 100}, {"all": 100}):
        with manager.run_iteration():
            pte.report(values)
    assert manager.observation["accuracy"] == 0.5
    for _ in range(3):
        with manager.run_iteration():
            pass
    assert "accuracy" not in manager.observation


def test_nothing_of_nothing_is_nan(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    for _ in range(3):
        with manager.run_iteration():
            pte.report({"right": 0, "all": 0})
    assert math.isnan(manager.observation["accuracy"])


def test_values_on_another_device_are_not_fetched(tmp_path: Path) -> None:
    manager = manager_of(tmp_path)
    before = DistantTensor.synchronisations
    for iteration in range(3):
        with manager.run_iteration():
            pte.report({"right": distant(RIGHT[iteration]), "all": distant(ALL[iteration])})
    result = manager.observation["accuracy"]
    assert DistantTensor.synchronisations == before
    assert isinstance(result, DistantTensor)
    assert result.inner == ratio(0)


def test_sums_on_another_device_are_numbers_in_a_snapshot(tmp_path: Path, through_a_file: ThroughAFile) -> None:
    manager = manager_of(tmp_path)
    with manager.run_iteration():
        pte.report({"right": distant(3), "all": distant(7)})
    state = through_a_file(manager.state_dict())
    sums = state["extensions"]["MicroAverage"]["extension"]["sums"]
    assert (sums["numerator"]["x"], sums["denominator"]["x"]) == (3, 7)


def test_keys_are_checked() -> None:
    with pytest.raises(TypeError, match="denominator_key: expected a string, got 3 of type int"):
        MicroAverage("right", 3, "accuracy")  # type: ignore[arg-type]
