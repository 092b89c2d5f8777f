"""Tests of all triggers, uninterrupted and with a resume at any iteration."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pte_tracking as pte
from pte_tracking import triggers
from pte_tracking._interface.extension import Manager
from pte_tracking._interface.progress import Progress

Make = Callable[[], Any]


def make_manager(directory: Path, trigger: Any, length: int, fired: list[int]) -> pte.ExtensionsManager:
    manager = pte.ExtensionsManager({}, 10_000, iters_per_epoch=length, out_dir=directory, sinks=[])
    manager.extend(lambda manager: fired.append(manager.iteration), "recorder", trigger=trigger)
    return manager


def save_and_load(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return dict(torch.load(file, weights_only=True))


def record_firings(
    tmp_path: Path, make: Make, length: int, values: Sequence[Any], resume_after: int | None = None
) -> list[int]:
    """Return the iterations in which a trigger fires, with a resume after iteration ``resume_after``."""
    directory = tmp_path / f"run{next(_numbers)}"
    fired: list[int] = []
    manager = make_manager(directory, make(), length, fired)
    for done, value in enumerate(values):
        if done == resume_after:
            state = save_and_load(manager.state_dict())
            manager.close()
            manager = make_manager(directory, make(), length, fired)
            manager.load_state_dict(state)
        with manager.run_iteration():
            pte.report({"v": value} if value is not None else {"other": 1})
    manager.close()
    return fired


_numbers: Iterator[int] = itertools.count()

CASES: dict[str, tuple[Make, int, Sequence[Any], list[int]]] = {
    "iterations": (lambda: (2, "iteration"), 5, range(7), [2, 4, 6]),
    "epochs": (lambda: (3, "epoch"), 1, range(7), [3, 6]),
    "fractional epochs": (lambda: (1.5, "epoch"), 2, range(7), [3, 6]),
    "fractional odd epoch": (lambda: (0.5, "epoch"), 5, range(10), [3, 5, 8, 10]),
    "subiteration interval": (lambda: (0.1, "epoch"), 2, range(4), [1, 2, 3, 4]),
    "fractional iterations": (lambda: (1.5, "iteration"), 5, range(7), [2, 3, 5, 6]),
    "never": (lambda: pte.triggers.Trigger.__new__(_Never), 5, range(5), []),
    "manager function": (lambda: lambda manager: manager.iteration in (2, 3), 5, range(5), [2, 3]),
    "schedule": (lambda: triggers.ManualScheduleTrigger([2, 4], "iteration"), 5, range(6), [2, 4]),
    "single point": (lambda: triggers.ManualScheduleTrigger(1.5, "epoch"), 2, range(6), [3]),
    "points between iterations": (lambda: triggers.ManualScheduleTrigger((0.5, 1.1), "epoch"), 5, range(8), [3, 6]),
    "once": (triggers.OnceTrigger, 5, range(6), [1]),
    "max": (lambda: triggers.MaxValueTrigger("v", (1, "iteration")), 5, [0.5, 0.5, 0.4, 0.6], [1, 4]),
    "min": (lambda: triggers.MinValueTrigger("v", (1, "iteration")), 5, [0.5, 0.5, 0.4, 0.6], [1, 3]),
    "max, means": (lambda: triggers.MaxValueTrigger("v", (2, "iteration")), 5, [5, 5, 6, 2, 9, 3], [2, 6]),
    "min, epochs": (lambda: triggers.MinValueTrigger("v"), 2, [5, 5, 6, 2, 9, 3], [2, 4]),
    "best": (
        lambda: triggers.BestValueTrigger("v", lambda best, new: abs(new) < abs(best), (1, "iteration")),
        *(2, [0.5, -0.5, -0.6, 0.4, -0.4, -0.3], [1, 4, 6]),
    ),
    "nan value": (
        lambda: triggers.MaxValueTrigger("v", (1, "iteration")),
        *(5, [1.0, math.nan, 2.0], [1, 3]),
    ),
    "early stopping, loss": (
        lambda: triggers.EarlyStoppingTrigger(monitor="v", patience=3),
        *(1, [100, 80, 30, 10, 20, 24, 30, 35, 5], [7, 8]),
    ),
    "early stopping, max": (
        lambda: triggers.EarlyStoppingTrigger(monitor="v", patience=3, mode="max"),
        *(1, [0.5, 0.5, 0.6, 0.7, 0.6, 0.4, 0.3, 0.2], [7, 8]),
    ),
    "early stopping, max trigger": (
        lambda: triggers.EarlyStoppingTrigger(monitor="v", max_trigger=(3, "iteration")),
        *(2, [5, 4, 3, 2], [3, 4]),
    ),
    "early stopping, means": (
        lambda: triggers.EarlyStoppingTrigger(monitor="v", patience=1),
        *(2, [5, 5, 9, 0, 9, 9], [6]),
    ),
}


class _Never(triggers.Trigger):
    def __call__(self, manager: Manager) -> bool:
        return False


def test_every_trigger_is_tested() -> None:
    tests = Path(__file__).read_text()
    missing = [name for name in triggers.__all__ if f"triggers.{name}" not in tests]
    assert not missing, f"No case in CASES contains {', '.join(missing)}. Add one with the expected iterations."


@pytest.mark.parametrize("name", CASES)
def test_trigger_fires_at_expected_iterations(name: str, tmp_path: Path) -> None:
    make, length, values, expected = CASES[name]
    assert record_firings(tmp_path, make, length, values) == expected


@pytest.mark.parametrize("name", CASES)
def test_trigger_resumed_at_any_iteration_fires_identically(name: str, tmp_path: Path) -> None:
    make, length, values, expected = CASES[name]
    for resume_after in range(1, len(values)):
        assert record_firings(tmp_path, make, length, values, resume_after) == expected


@given(numerator=st.integers(1, 40), denominator=st.integers(1, 40), length=st.integers(1, 300))
def test_interval_trigger_epoch_fraction_fires_exactly(numerator: int, denominator: int, length: int) -> None:
    trigger = triggers.IntervalTrigger(numerator / denominator, "epoch")
    progress = Progress(length)
    manager: Any = SimpleNamespace(updater=progress)
    interval = Fraction(numerator, denominator) * length
    fired = []
    for progress.iteration in range(3 * length + 1):
        if trigger(manager):
            fired.append(progress.iteration)
    expected = {math.ceil(interval * k) for k in range(1, int(3 * length / interval) + 1)}
    assert fired == sorted(expected)


def test_interval_trigger_high_iteration_numbers_stay_exact() -> None:
    trigger, progress = triggers.IntervalTrigger(0.1, "epoch"), Progress(1000)
    manager: Any = SimpleNamespace(updater=progress)
    fired = []
    for progress.iteration in range(10**9, 10**9 + 1001):
        if trigger(manager):
            fired.append(progress.iteration - 10**9)
    assert fired == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]


@pytest.mark.parametrize("number", [np.int64(2), np.float32(0.5), Fraction(1, 3), 2])
def test_interval_trigger_period_accepts_any_number_type(number: Any) -> None:
    assert triggers.IntervalTrigger(number, "epoch").period is number


def test_interval_trigger_str_shows_period_and_unit() -> None:
    assert str(triggers.IntervalTrigger(1.5, "epoch")) == "IntervalTrigger(1.5, 'epoch')"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: triggers.IntervalTrigger(1, "day"), ValueError, "unit.*'day'"),
        (lambda: triggers.ManualScheduleTrigger([1], "day"), ValueError, "unit.*'day'"),
        (lambda: triggers.IntervalTrigger(0, "epoch"), ValueError, "period.*positive.*0"),
        (lambda: triggers.IntervalTrigger(-1.5, "epoch"), ValueError, "period.*-1.5"),
        (lambda: triggers.IntervalTrigger(math.nan, "epoch"), ValueError, "period.*nan"),
        (lambda: triggers.IntervalTrigger(math.inf, "epoch"), ValueError, "period.*inf"),
        (lambda: triggers.IntervalTrigger("1", "epoch"), TypeError, "period.*'1'"),  # type: ignore[arg-type]
        (lambda: triggers.IntervalTrigger(True, "epoch"), TypeError, "period.*True"),
        (lambda: triggers.ManualScheduleTrigger([2, -1], "epoch"), ValueError, "points.*-1"),
        (lambda: triggers.TimeTrigger(0), ValueError, "period"),
        (lambda: triggers.EarlyStoppingTrigger(mode="highest"), ValueError, "mode.*'highest'"),
        (lambda: triggers.EarlyStoppingTrigger(patience=0), ValueError, "patience.*0"),
        (lambda: triggers.EarlyStoppingTrigger(max_trigger=(0, "epoch")), ValueError, "period"),
        (lambda: triggers.MaxValueTrigger(""), ValueError, "key"),
        (lambda: triggers.MaxValueTrigger("x", (1, "day")), ValueError, "'day'"),
        (lambda: triggers.get_trigger(5), TypeError, "trigger.*5"),  # type: ignore[arg-type]
        (lambda: triggers.get_trigger((1,)), TypeError, r"trigger.*\(1,\)"),  # type: ignore[arg-type]
    ],
)
def test_trigger_invalid_argument_raises(make: Make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_get_trigger_returns_triggers_and_converts_other_values() -> None:
    trigger = triggers.OnceTrigger()
    assert triggers.get_trigger(trigger) is trigger
    assert isinstance(triggers.get_trigger((1, "epoch")), triggers.IntervalTrigger)
    progress: Any = Progress(1)
    assert triggers.get_trigger(None)(progress) is False
    assert triggers.get_trigger(lambda manager: 1)(progress) is True  # type: ignore[arg-type, return-value]


class _EveryOther:
    """Callable with a state."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, manager: Manager) -> bool:
        self.calls += 1
        return self.calls % 2 == 0

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


def test_callable_trigger_resumed_keeps_state_and_fires_identically(tmp_path: Path) -> None:
    for resume_after in range(1, 6):
        assert record_firings(tmp_path, _EveryOther, 3, range(6), resume_after) == [2, 4, 6]


def test_once_trigger_call_on_resume_fires_after_resume(tmp_path: Path) -> None:
    assert record_firings(tmp_path, lambda: triggers.OnceTrigger(call_on_resume=True), 3, range(6), 4) == [1, 5]


def test_function_trigger_is_evaluated_when_its_inner_trigger_fires(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def decide(a: int, b: int) -> bool:
        calls.append((a, b))
        return len(calls) == 2

    trigger = triggers.FunctionTrigger(decide, [1], {"b": 2}, trigger=(2, "iteration"))
    assert record_firings(tmp_path, lambda: trigger, 3, range(6)) == [4]
    assert calls == [(1, 2)] * 3


class _Elapsed:
    elapsed_time = 0.0


def test_time_trigger_fires_at_multiples_and_skips_missed_ones() -> None:
    trigger, clock = triggers.TimeTrigger(1), _Elapsed()
    seconds = [0.0, 0.9, 1.2, 1.3, 2.1, 2.2, 7.5, 7.6, 8.0]
    fired = []
    for clock.elapsed_time in seconds:
        if trigger(clock):  # type: ignore[arg-type]
            fired.append(clock.elapsed_time)
    assert fired == [1.2, 2.1, 7.5, 8.0]


def test_time_trigger_resumed_does_not_fire_again() -> None:
    clock = _Elapsed()
    first, second = triggers.TimeTrigger(1), triggers.TimeTrigger(1)
    clock.elapsed_time = 1.2
    assert first(clock)  # type: ignore[arg-type]
    second.load_state_dict(save_and_load(first.state_dict()))
    assert not second(clock)  # type: ignore[arg-type]


def test_time_trigger_includes_time_of_earlier_sessions(tmp_path: Path) -> None:
    fired: list[int] = []
    manager = make_manager(tmp_path, triggers.TimeTrigger(1000), 5, fired)
    state = manager.state_dict()
    state["manager"]["elapsed_time"] = 1000.5
    manager.load_state_dict(state)
    with manager.run_iteration():
        pass
    manager.close()
    assert fired == [1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: triggers.MinValueTrigger("v"),
        lambda: triggers.EarlyStoppingTrigger(monitor="v", patience=1, mode="min"),
    ],
)
def test_trigger_unreported_value_warns_once_with_reported_names(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert record_firings(tmp_path, make, 2, [None] * 6) == []
    (message,) = (message for message in caplog.messages if "'v'" in message)
    owner = type(make()).__name__
    assert message.startswith(f"{owner}: 'v' was not reported in the interval that ended at iteration 2")
    assert message.endswith("Reported keys: 'other'.")


def test_min_value_trigger_uses_only_reported_values(tmp_path: Path) -> None:
    values = [5, None, None, 4, 3, None]
    assert record_firings(tmp_path, lambda: triggers.MinValueTrigger("v"), 2, values) == [2, 4, 6]


def test_value_trigger_weighs_reported_values(tmp_path: Path) -> None:
    fired: list[int] = []
    trigger = triggers.MinValueTrigger("loss", (2, "iteration"))
    manager = make_manager(tmp_path, trigger, 2, fired)
    for pair in [(1.0, 1), (9.0, 9), (6.0, 1), (6.0, 1), (0.0, 1), (8.0, 4)]:  # the means are 8.2, 6, and 6.4
        with manager.run_iteration():
            pte.report({"loss": pair})
    assert fired == [2, 4]


def test_early_stopping_verbose_prints_best_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_firings(
        tmp_path,
        lambda: triggers.EarlyStoppingTrigger(monitor="v", patience=1, mode="min", verbose=True),
        1,
        [1.23456, 2],
    )
    assert capsys.readouterr().out == "Early stopping after epoch 2. Best v (mode 'min'): 1.235\n"


def test_early_stopping_auto_mode_maximizes_accuracy(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager(
        {}, 9, iters_per_epoch=1, out_dir=tmp_path, stop_trigger=triggers.EarlyStoppingTrigger(monitor="accuracy")
    )
    for value in (0.1, 0.2, 0.1, 0.1, 0.1):
        assert not manager.stop_trigger
        with manager.run_iteration():
            pte.report({"accuracy": value})
    assert manager.stop_trigger


def mode_warnings(
    caplog: pytest.LogCaptureFixture, directory: Path, trigger: triggers.EarlyStoppingTrigger
) -> list[str]:
    """Return the warnings of two iterations about the mode of a stop trigger."""
    manager = pte.ExtensionsManager({}, 2, iters_per_epoch=1, out_dir=directory, sinks=[], stop_trigger=trigger)
    for _ in manager.iterations([1]):
        pass
    return [message for message in caplog.messages if "does not show which values are better" in message]


HIGHER_IS_BETTER = [
    "val/iou",
    "val/f1",
    "valF1",
    "auc",
    "val/precision",
    "recall",
    "dice",
    "mAP50",
    "bleu",
    "val/r2",
    "acc",
]


@pytest.mark.parametrize(
    ("key", "mode"),
    [*((key, "max") for key in HIGHER_IS_BETTER), *((key, "min") for key in ("val/loss", "wer", "val/perplexity"))],
)
def test_early_stopping_auto_mode_of_known_metric_is_that_of_its_name(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, key: str, mode: str
) -> None:
    trigger = triggers.EarlyStoppingTrigger(monitor=key)
    assert trigger.state_dict()["mode"] == mode
    assert not mode_warnings(caplog, tmp_path, trigger)


@pytest.mark.parametrize("key", ["val/tracc", "mapping", "energy"])
def test_early_stopping_auto_mode_of_unknown_metric_is_logged_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, key: str
) -> None:
    trigger = triggers.EarlyStoppingTrigger(monitor=key)
    assert trigger.state_dict()["mode"] == "min"
    (message,) = mode_warnings(caplog, tmp_path / "auto", trigger)
    assert f"the name {key!r} does not show which values are better, so lower values are" in message
    caplog.clear()
    assert not mode_warnings(caplog, tmp_path / "max", triggers.EarlyStoppingTrigger(monitor=key, mode="max"))


def test_trigger_without_call_method_raises_not_implemented_error() -> None:
    class Empty(triggers.Trigger):
        pass

    with pytest.raises(NotImplementedError, match="Empty"):
        Empty()(Progress(1))  # type: ignore[arg-type]
