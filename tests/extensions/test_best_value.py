"""Tests of BestValue, MaxValue, and MinValue."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_tracking.extensions import BestValue, MaxValue, MinValue, observe_value

SaveAndLoad = Callable[[dict[str, Any]], dict[str, Any]]
Best = tuple[float, int | None, int]


def train_and_collect_best(out: Path, best: BestValue, values: list[float], **options: Any) -> list[Best]:
    """Report a value at the end of each epoch. Return the best value, epoch, and iteration after each epoch."""
    observe = observe_value("value", lambda manager: values[manager.iteration // 3 - 1])
    options = {"iters_per_epoch": 3, "out_dir": out, "sinks": [], **options}
    manager = pte.ExtensionsManager({}, len(values), [observe, best], **options)
    seen = []
    for _ in values:
        for _ in range(3):
            with manager.run_iteration():
                pass
        seen.append((best.best_value, best.best_epoch, best.best_iteration))
    return seen


def test_min_value_tracks_lowest_value(tmp_path: Path) -> None:
    seen = train_and_collect_best(tmp_path, MinValue("value"), [4.0, 4.5, 3.0, 3.5])
    assert seen == [(4.0, 1, 3), (4.0, 1, 3), (3.0, 3, 9), (3.0, 3, 9)]


def test_max_value_tracks_highest_value(tmp_path: Path) -> None:
    seen = train_and_collect_best(tmp_path, MaxValue("value"), [3.0, 4.5, 4.0, 5.0])
    assert seen == [(3.0, 1, 3), (4.5, 2, 6), (4.5, 2, 6), (5.0, 4, 12)]


def test_best_value_custom_compare_selects_best(tmp_path: Path) -> None:
    nearest_to_one = BestValue("value", lambda best, new: abs(new - 1) < abs(best - 1))
    seen = train_and_collect_best(tmp_path, nearest_to_one, [3.0, 0.5, -1.0, 1.25])
    assert [value for value, _, _ in seen] == [3.0, 0.5, 0.5, 1.25]


def test_best_value_nan_is_ignored(tmp_path: Path) -> None:
    seen = train_and_collect_best(tmp_path, MinValue("value"), [2.0, math.nan, 1.0])
    assert [value for value, _, _ in seen] == [2.0, 2.0, 1.0]
    late = MaxValue("value")
    with pytest.raises(RuntimeError, match="No best value of 'value' yet"):
        train_and_collect_best(tmp_path, late, [math.nan])
    assert train_and_collect_best(tmp_path, late, [1.0]) == [(1.0, 1, 3)]


def test_best_value_compares_interval_means(tmp_path: Path) -> None:
    best = MinValue("value", (2, "iteration"))
    manager = pte.ExtensionsManager({}, 9, [best], iters_per_epoch=6, out_dir=tmp_path, sinks=[])
    for value in (1, 9, 4, 4, 8, 2):
        with manager.run_iteration():
            pte.report({"value": value})
    assert (best.best_value, best.best_iteration, best.best_epoch) == (4, 4, 0)


def test_best_value_given_trigger_ends_the_interval(tmp_path: Path) -> None:
    best = MinValue("value")
    manager = pte.ExtensionsManager({}, 1, iters_per_epoch=8, out_dir=tmp_path, sinks=[])
    manager.extend(best, trigger=(2, "iteration"))
    for value in (4.0, 2.0, (0.0, 1), (3.0, 3), 5.0, 1.0):
        with manager.run_iteration():
            pte.report({"value": value})
    assert (best.best_value, best.best_iteration) == (2.25, 4)


def test_best_value_unset_epoch_length_has_none_as_best_epoch(tmp_path: Path) -> None:
    best = MinValue("value", (2, "iteration"))
    manager = pte.ExtensionsManager({}, 9, [best], stop_trigger=(2, "iteration"), out_dir=tmp_path, sinks=[])
    while not manager.stop_trigger:
        with manager.run_iteration():
            pte.report({"value": 1})
    assert (best.best_value, best.best_iteration, best.best_epoch) == (1, 2, None)


@pytest.mark.parametrize("cut", range(1, 8))
def test_best_value_resumed_matches_uninterrupted_run(tmp_path: Path, cut: int, save_and_load: SaveAndLoad) -> None:
    def train(manager: pte.ExtensionsManager, until: int) -> None:
        while manager.iteration < until:
            with manager.run_iteration():
                pte.report({"value": (manager.iteration * 7) % 5})

    def make_manager(best: BestValue, name: str) -> pte.ExtensionsManager:
        return pte.ExtensionsManager({}, 9, [best], iters_per_epoch=2, out_dir=tmp_path / name, sinks=[])

    train(make_manager(whole := MinValue("value"), "whole"), 8)
    killed = make_manager(MinValue("value"), "parts")
    train(killed, cut)
    state = save_and_load(killed.state_dict())
    killed.close("KILLED")
    resumed = make_manager(best := MinValue("value"), "parts")
    resumed.load_state_dict(state)
    train(resumed, 8)
    assert best.state_dict() == whole.state_dict()
    assert (best.best_value, best.best_iteration) == (whole.best_value, whole.best_iteration)


@pytest.mark.parametrize("attribute", ["best_value", "best_iteration", "best_epoch"])
def test_best_value_before_first_interval_raises_runtime_error(attribute: str) -> None:
    with pytest.raises(
        RuntimeError, match=r"No best value of 'value' yet\. No interval .* has ended\. .* later in the list"
    ):
        getattr(MaxValue("value"), attribute)


def test_best_value_default_names_match_pytorch_pfn_extras() -> None:
    extensions = [BestValue("value", max), MaxValue("value"), MinValue("value")]
    assert [extension.default_name for extension in extensions] == ["best_value", "max_value", "min_value"]


def test_best_value_non_function_compare_raises_type_error() -> None:
    with pytest.raises(TypeError, match="compare: expected a function of the best value and the new value, got 'min'"):
        BestValue("value", "min")  # type: ignore[arg-type]
