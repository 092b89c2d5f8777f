"""An option of an optimizer that grows or shrinks by the same factor again and again."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pte_tracking._interface.extension import Extension, Manager
from pte_tracking.extensions._optimizers import check_optimizer, find_optimizer, find_option


class ExponentialShift(Extension):
    """Multiplies an option of an optimizer, such as its learning rate, by a rate each time it runs.

    Before the first iteration the option is set to its initial value; then it shifts after every iteration, or as
    often as ``extend(..., trigger=)`` says: after the n-th time it is ``init * rate**n`` exactly, after a resume as
    well. It does so in all parameter groups of the optimizer; one that is added later shifts from the value that it has
    then. It reports nothing: see :func:`~pte_tracking.extensions.observe_lr`.

    Args:
        attr: The option's name in the parameter groups, such as ``"lr"``, ``"momentum"`` or ``"weight_decay"``; it
            must be a number.
        rate: The factor, not negative.
        init: The initial value; what each parameter group has before the first iteration if None.
        target: Where the shift stops.
        optimizer: An optimizer, or its name in the manager; ``"main"`` if None.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The rate is negative or not finite. Before the first iteration: there is no such optimizer or
            option, or the target does not lie where the rate leads.

    State in snapshots: the initial values and the numbers of shifts.
    """

    def __init__(
        self,
        attr: str,
        rate: float,
        init: float | None = None,
        target: float | None = None,
        optimizer: Optimizer | str | None = None,
    ) -> None:
        for argument, value in (("rate", rate), ("init", init), ("target", target)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, float | int)):
                raise TypeError(f"{argument}: expected a number, got {value!r} of type {type(value).__name__}")
        if not 0 <= rate < math.inf:
            raise ValueError(f"rate: expected a factor that is finite and not negative, got {rate!r}")
        self._attr = attr
        self._rate = rate
        self._init = init
        self._target = target
        self._optimizer: Optimizer | str = "main" if optimizer is None else optimizer
        check_optimizer("optimizer", self._optimizer)
        self._inits: list[float] = []
        #: The shifts that were done before each group was there.
        self._start_shifts: list[int] = []
        self._shifts = 0

    def check(self, manager: Manager) -> None:
        self._read_values(find_optimizer("ExponentialShift", manager, self._optimizer))

    def initialize(self, manager: Manager) -> None:
        optimizer = find_optimizer("ExponentialShift", manager, self._optimizer)
        if not self._inits and self._init is not None:
            self._inits = [self._init] * len(optimizer.param_groups)
            self._start_shifts = [0] * len(self._inits)
        self._add_new_groups(optimizer)
        for init in self._inits:
            self._check_target(init)
        self._apply(optimizer)

    def __call__(self, manager: Manager) -> None:
        optimizer = find_optimizer("ExponentialShift", manager, self._optimizer)
        self._add_new_groups(optimizer)
        self._shifts += 1
        self._apply(optimizer)

    def _add_new_groups(self, optimizer: Optimizer) -> None:
        """Has groups that are new shift from what they hold; of a resumed optimizer that is what it was shifted to."""
        for group in range(len(self._inits), len(optimizer.param_groups)):
            self._inits.append(self._read_value(optimizer, group))
            self._start_shifts.append(self._shifts)

    def _read_values(self, optimizer: Optimizer) -> list[float]:
        return [self._read_value(optimizer, group) for group in range(len(optimizer.param_groups))]

    def state_dict(self) -> dict[str, Any]:
        return {"inits": self._inits, "missed": self._start_shifts, "shifts": self._shifts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._inits, self._start_shifts, self._shifts = list(state["inits"]), list(state["missed"]), state["shifts"]

    def _read_value(self, optimizer: Optimizer, group: int) -> float:
        value = find_option("ExponentialShift", optimizer, group, self._attr)
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value)
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise TypeError(f"ExponentialShift: only a number can be shifted; the option {self._attr!r} is {value!r}")
        return value

    def _check_target(self, init: float) -> None:
        if self._target is None or not init:
            return
        ratio = self._target / init
        if ratio < 0 or (ratio > 1 and self._rate < 1) or (ratio < 1 and self._rate > 1):
            raise ValueError(f"target: a rate of {self._rate} never leads from {init} to {self._target}")

    def _apply(self, optimizer: Optimizer) -> None:
        for group, init, start in zip(optimizer.param_groups, self._inits, self._start_shifts, strict=True):
            value = self._shifted(init, self._shifts - start)
            if isinstance(group[self._attr], Tensor):
                group[self._attr].fill_(value)  # compiled and captured optimizers read it from there
            else:
                group[self._attr] = value

    def _shifted(self, init: float, shifts: int) -> float:
        try:
            value = init * self._rate**shifts
        except OverflowError:
            value = math.copysign(math.inf, init)
        if self._target is None:
            return value
        is_past = abs(value) > abs(self._target) if self._rate > 1 else abs(value) < abs(self._target)
        return self._target if is_past else value
