"""Tests of MicroAverage."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pte_tracking as pte
from pte_tracking.extensions import LogReport, MicroAverage
from tests.test_reporter import DistantTensor, make_distant

SaveAndLoad = Callable[[dict[str, Any]], dict[str, Any]]
RIGHT, ALL = [3, 1, 7, 2, 5, 0, 4, 1, 6], [7, 9, 7, 3, 11, 2, 4, 5, 6]


def make_manager(out: Path, *more: Any) -> pte.ExtensionsManager:
    average = MicroAverage("right", "all", "accuracy", (3, "iteration"))
    return pte.ExtensionsManager({}, 100, [*more, average], iters_per_epoch=5, out_dir=out, sinks=[])


def train(manager: pte.ExtensionsManager, until: int) -> list[Any]:
    seen = []
    while manager.iteration < until:
        with manager.run_iteration():
            pte.report({"right": np.int64(RIGHT[manager.iteration]), "all": np.float32(ALL[manager.iteration])})
        seen.append(manager.observation.get("accuracy"))
    return seen


def compute_ratio(start: int) -> float:
    return sum(RIGHT[start : start + 3]) / sum(ALL[start : start + 3])


def test_micro_average_reports_ratio_of_sums_at_interval_end(tmp_path: Path) -> None:
    seen = train(make_manager(tmp_path), 9)
    assert seen == [None, None, compute_ratio(0), None, None, compute_ratio(3), None, None, compute_ratio(6)]


def test_micro_average_is_logged_in_same_iteration(tmp_path: Path) -> None:
    log = LogReport(["accuracy"], trigger=(3, "iteration"))
    train(make_manager(tmp_path, log), 9)
    assert [row["accuracy"] for row in log.log] == [compute_ratio(0), compute_ratio(3), compute_ratio(6)]


@pytest.mark.parametrize("cut", range(1, 9))
def test_micro_average_resumed_matches_uninterrupted_run(tmp_path: Path, cut: int, save_and_load: SaveAndLoad) -> None:
    killed = make_manager(tmp_path)
    first = train(killed, cut)
    state = save_and_load(killed.state_dict())
    killed.close("KILLED")
    resumed = make_manager(tmp_path)
    resumed.load_state_dict(state)
    assert first + train(resumed, 9) == train(make_manager(tmp_path / "whole"), 9)


def test_micro_average_interval_without_values_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = make_manager(tmp_path)
    for _ in range(6):
        with manager.run_iteration():
            pte.report({"rihgt": 1, "all": 2})
    assert caplog.messages == [
        "MicroAverage: no iteration of the interval that ended at iteration 3 reported 'right' and 'all', and such an "
        "interval has no 'accuracy'. Reported keys: 'rihgt', 'all'. Did you mean 'rihgt'?"
    ]


def test_micro_average_iteration_missing_either_value_is_ignored(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    for values in ({"right": 1, "all": 2}, {"right": 100}, {"all": 100}):
        with manager.run_iteration():
            pte.report(values)
    assert manager.observation["accuracy"] == 0.5
    for _ in range(3):
        with manager.run_iteration():
            pass
    assert "accuracy" not in manager.observation


def test_micro_average_zero_sums_report_nan(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    for _ in range(3):
        with manager.run_iteration():
            pte.report({"right": 0, "all": 0})
    assert math.isnan(manager.observation["accuracy"])


def test_micro_average_device_values_are_not_fetched(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    before = DistantTensor.synchronizations
    for iteration in range(3):
        with manager.run_iteration():
            pte.report({"right": make_distant(RIGHT[iteration]), "all": make_distant(ALL[iteration])})
    result = manager.observation["accuracy"]
    assert DistantTensor.synchronizations == before
    assert isinstance(result, DistantTensor)
    assert result.inner == compute_ratio(0)


def test_micro_average_snapshot_stores_device_sums_as_numbers(tmp_path: Path, save_and_load: SaveAndLoad) -> None:
    manager = make_manager(tmp_path)
    with manager.run_iteration():
        pte.report({"right": make_distant(3), "all": make_distant(7)})
    state = save_and_load(manager.state_dict())
    sums = state["extensions"]["MicroAverage"]["extension"]["sums"]
    assert (sums["numerator"]["x"], sums["denominator"]["x"]) == (3, 7)


def test_micro_average_non_string_key_raises_type_error() -> None:
    with pytest.raises(TypeError, match="denominator_key: expected a string, got 3 of type int"):
        MicroAverage("right", 3, "accuracy")  # type: ignore[arg-type]
