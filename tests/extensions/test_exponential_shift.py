"""Tests of ExponentialShift: exact values, parameter groups, and resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking.extensions import ExponentialShift

SaveAndLoad = Callable[[dict[str, Any]], dict[str, Any]]


def make_sgd(*rates: float | Tensor, **options: Any) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, **options)


def make_manager(out: Path, shift: ExponentialShift, trigger: Any = None, **optimizers: Any) -> pte.ExtensionsManager:
    manager = pte.ExtensionsManager({}, 100, optimizers=optimizers, iters_per_epoch=4, out_dir=out, sinks=[])
    manager.extend(shift, trigger=trigger)
    return manager


def record_values(manager: pte.ExtensionsManager, until: int, attr: str = "lr", name: str = "main") -> list[float]:
    """Return the value of the option during each iteration."""
    seen = []
    while manager.iteration < until:
        with manager.run_iteration():
            seen.append(float(manager.optimizers[name].param_groups[0][attr]))
    return seen


@pytest.mark.parametrize(
    ("init", "rate", "target", "expected"),
    [
        (2.0, 0.5, None, [2.0, 1.0, 0.5]),
        (2.0, 0.5, 1.2, [2.0, 1.2, 1.2]),
        (-2.0, 0.5, -1.2, [-2.0, -1.2, -1.2]),
        (2.0, 2.0, None, [2.0, 4.0, 8.0]),
        (2.0, 2.0, 3.0, [2.0, 3.0, 3.0]),
        (-2.0, 2.0, -3.0, [-2.0, -3.0, -3.0]),
        (2.0, 0.5, 0.0, [2.0, 1.0, 0.5]),
        (2.0, 1.0, 2.0, [2.0, 2.0, 2.0]),
        (2.0, 0, 0.0, [2.0, 0.0, 0.0]),
        (0.0, 2.0, 1.0, [0.0, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize("is_given", [True, False])
def test_exponential_shift_moves_from_init_to_target(
    tmp_path: Path, init: float, rate: float, target: float | None, expected: list[float], is_given: bool
) -> None:
    optimizer = make_sgd(0.1)
    optimizer.param_groups[0]["momentum"] = 0.9 if is_given else init
    shift = ExponentialShift("momentum", rate, init if is_given else None, target)
    manager = make_manager(tmp_path, shift, (4, "iteration"), main=optimizer)
    assert record_values(manager, 12, "momentum") == [value for value in expected for _ in range(4)]


def test_exponential_shift_default_trigger_shifts_each_iteration(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, ExponentialShift("lr", 0.1), main=make_sgd(1.0))
    assert record_values(manager, 4) == [1.0 * 0.1**n for n in range(4)]


def test_exponential_shift_param_groups_shift_independently(tmp_path: Path) -> None:
    optimizer = make_sgd(1.0, 10.0)
    manager = make_manager(tmp_path, ExponentialShift("lr", 0.5, target=2), main=optimizer)
    with pytest.raises(ValueError, match=r"target: a rate of 0.5 cannot reach 2 from 1.0"):
        record_values(manager, 1)
    manager = make_manager(tmp_path, ExponentialShift("lr", 0.5, target=0.5), main=optimizer)
    record_values(manager, 3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1.25]


@pytest.mark.parametrize("by_name", [True, False])
def test_exponential_shift_accepts_optimizer_by_name_or_object(tmp_path: Path, by_name: bool) -> None:
    main, other = make_sgd(1.0), make_sgd(1.0)
    shift = ExponentialShift("lr", 0.5, optimizer="other" if by_name else other)
    manager = make_manager(tmp_path, shift, main=main, other=other)
    assert record_values(manager, 2, name="other") == [1.0, 0.5]
    assert main.param_groups[0]["lr"] == 1.0


def test_exponential_shift_tensor_learning_rate_changes_in_place(tmp_path: Path) -> None:
    rate = torch.tensor(1.0)
    manager = make_manager(tmp_path, ExponentialShift("lr", 0.5), main=make_sgd(rate))
    record_values(manager, 2)
    assert manager.optimizers["main"].param_groups[0]["lr"] is rate
    assert rate == 0.25


@pytest.mark.parametrize("init", [None, 0.3])
@pytest.mark.parametrize("cut", range(1, 8))
def test_exponential_shift_resumed_matches_uninterrupted_run(
    tmp_path: Path, cut: int, init: float | None, save_and_load: SaveAndLoad
) -> None:
    def shift() -> ExponentialShift:
        return ExponentialShift("lr", 0.7, init)

    whole = record_values(make_manager(tmp_path / "whole", shift(), (2, "iteration"), main=make_sgd(0.1)), 10)
    killed = make_manager(tmp_path / "parts", shift(), (2, "iteration"), main=make_sgd(0.1))
    first = record_values(killed, cut)
    state = save_and_load(killed.state_dict())
    killed.close("KILLED")
    resumed = make_manager(tmp_path / "parts", shift(), (2, "iteration"), main=make_sgd(123.0))
    resumed.load_state_dict(state)
    assert first + record_values(resumed, 10) == whole


def test_exponential_shift_late_param_group_shifts_from_current_value(tmp_path: Path) -> None:
    # A parameter group is added, for example, when a layer is unfrozen.
    optimizer = make_sgd(1.0)
    manager = make_manager(tmp_path, ExponentialShift("lr", 0.5), main=optimizer)
    record_values(manager, 2)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 16.0})
    record_values(manager, 3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 8.0]
    state = manager.state_dict()
    manager.close()
    optimizer = make_sgd(1.0, 1.0)
    manager = make_manager(tmp_path, ExponentialShift("lr", 0.5), main=optimizer)
    manager.load_state_dict(state)
    record_values(manager, 4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0625, 4.0]


def test_exponential_shift_large_shift_count_does_not_overflow(tmp_path: Path) -> None:
    shift = ExponentialShift("lr", 2.0, target=3.0)
    shift.load_state_dict({"inits": [1.0], "missed": [0], "shifts": 10_000})
    assert record_values(make_manager(tmp_path, shift, main=make_sgd(1.0)), 2) == [3.0, 3.0]


def test_exponential_shift_missing_optimizer_raises_at_registration(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"ExponentialShift: unknown optimizer 'main'. Optimizers of the manager: 'generator', 'critic'. "
        r"Pass optimizers=\{'main': optimizer\} to the manager or select another optimizer",
    ):
        make_manager(tmp_path, ExponentialShift("lr", 0.5), generator=make_sgd(1.0), critic=make_sgd(1.0))
    with pytest.raises(ValueError, match=r"'main'. Optimizers of the manager: none"):
        make_manager(tmp_path, ExponentialShift("lr", 0.5))


def test_exponential_shift_missing_option_raises_value_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown option 'learning_rate' of SGD. Available options: 'lr', 'momentum', 'damp"
    ):
        make_manager(tmp_path, ExponentialShift("learning_rate", 0.5), main=make_sgd(1.0))


def test_exponential_shift_non_numeric_option_raises_type_error(tmp_path: Path) -> None:
    adam = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    with pytest.raises(TypeError, match=r"expected a number as option 'betas', got \(0.9, 0.999\)"):
        record_values(make_manager(tmp_path, ExponentialShift("betas", 0.5), main=adam), 1)
    with pytest.raises(TypeError, match="expected a number as option 'nesterov', got False"):
        record_values(make_manager(tmp_path, ExponentialShift("nesterov", 0.5), main=make_sgd(1.0)), 1)


@pytest.mark.parametrize("target", [-1.0, 3.0])
def test_exponential_shift_unreachable_target_raises_value_error(tmp_path: Path, target: float) -> None:
    manager = make_manager(tmp_path, ExponentialShift("lr", 0.5, target=target), main=make_sgd(1.0))
    with pytest.raises(ValueError, match=f"target: a rate of 0.5 cannot reach {target} from 1.0"):
        record_values(manager, 1)


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_exponential_shift_invalid_rate_raises_value_error(rate: float) -> None:
    with pytest.raises(ValueError, match="rate: expected a finite, non-negative factor, got"):
        ExponentialShift("lr", rate)


def test_exponential_shift_invalid_argument_types_raise_type_error() -> None:
    with pytest.raises(TypeError, match=r"rate: expected a number, got '0.5' of type str"):
        ExponentialShift("lr", "0.5")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target: expected a number, got True of type bool"):
        ExponentialShift("lr", 0.5, target=True)
    with pytest.raises(TypeError, match="optimizer: expected an optimizer or the name of an optimizer of the manager"):
        ExponentialShift("lr", 0.5, optimizer=0.1)  # type: ignore[arg-type]
