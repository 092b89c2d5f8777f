"""Exponential change of an optimizer option."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from pte_tracking._interface.extension import Extension, Manager
from pte_tracking._store.printable import describe_value
from pte_tracking.extensions._optimizers import check_optimizer, find_optimizer, find_option


class ExponentialShift(Extension):
    """Extension that multiplies an optimizer option, such as the learning rate, by a factor each time it runs.

    Before the first iteration, the option is set to its initial value. The extension then runs after every iteration,
    or according to ``extend(..., trigger=...)``. After ``n`` runs, the value is exactly ``init * rate**n``, including
    after a resume. The option changes in all parameter groups of the optimizer. A parameter group that is added later
    starts with its current value.

    The extension reports no values. To report the learning rate, use :func:`~pte_tracking.extensions.observe_lr`.
    Snapshots contain the initial values and the number of shifts.

    Args:
        attr: Name of a numeric option of the parameter groups, such as ``"lr"``, ``"momentum"`` or
            ``"weight_decay"``.
        rate: Factor, finite and not negative.
        init: Initial value. Defaults to the value of each parameter group before the first iteration.
        target: Value at which the shift stops. Defaults to no limit.
        optimizer: Optimizer, or its name in the manager. Defaults to ``"main"``.

    Raises:
        TypeError: If an argument has the wrong type. When the extension is registered, if the option is not a number.
        ValueError: If ``rate`` is negative or not finite. When the extension is registered, if the optimizer or the
            option does not exist. Before the first iteration, if ``rate`` cannot reach ``target``.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> shift = extensions.ExponentialShift("lr", 0.5, target=0.1)
        >>> with pte.ExtensionsManager(
        ...     model, 1, [shift], optimizers=optimizer, iters_per_epoch=4, sinks=[]
        ... ) as manager:
        ...     for batch in manager.batches(range(4)):
        ...         with manager.run_iteration():
        ...             print(optimizer.param_groups[0]["lr"])
        0.5
        0.25
        0.125
        0.1
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
                raise TypeError(f"{argument}: expected a number, got {describe_value(value)}")
        if not 0 <= rate < math.inf:
            raise ValueError(f"rate: expected a finite, non-negative factor, got {rate!r}")
        self._attr = attr
        self._rate = rate
        self._init = init
        self._target = target
        #: An optimizer that only this extension refers to is part of snapshots, too.
        self.optimizer: Optimizer | str = "main" if optimizer is None else optimizer
        check_optimizer("optimizer", self.optimizer)
        self._inits: list[float] = []
        # Number of shifts before each parameter group was added.
        self._start_shifts: list[int] = []
        self._shifts = 0

    def check(self, manager: Manager) -> None:
        self._read_values(find_optimizer("ExponentialShift", manager, self.optimizer))

    def initialize(self, manager: Manager) -> None:
        optimizer = find_optimizer("ExponentialShift", manager, self.optimizer)
        if not self._inits and self._init is not None:
            self._inits = [self._init] * len(optimizer.param_groups)
            self._start_shifts = [0] * len(self._inits)
        self._add_new_groups(optimizer)
        for init in self._inits:
            self._check_target(init)
        self._apply(optimizer)

    def __call__(self, manager: Manager) -> None:
        optimizer = find_optimizer("ExponentialShift", manager, self.optimizer)
        self._add_new_groups(optimizer)
        self._shifts += 1
        self._apply(optimizer)

    def _add_new_groups(self, optimizer: Optimizer) -> None:
        """Register parameter groups that were added since the last call, with their current value as initial value."""
        for group in range(len(self._inits), len(optimizer.param_groups)):
            self._inits.append(self._read_value(optimizer, group))
            self._start_shifts.append(self._shifts)

    def _read_values(self, optimizer: Optimizer) -> list[float]:
        return [self._read_value(optimizer, group) for group in range(len(optimizer.param_groups))]

    def state_dict(self) -> dict[str, Any]:
        return {
            "attr": self._attr,
            "inits": self._inits,
            "missed": self._start_shifts,
            "shifts": self._shifts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (saved_attr := state.get("attr", self._attr)) != self._attr:
            raise ValueError(f"the saved shifts are of the option {saved_attr!r}, but the option is {self._attr!r} now")
        self._inits, self._start_shifts, self._shifts = list(state["inits"]), list(state["missed"]), state["shifts"]
        if self._init is not None:  # The rate and the initial value are those of the script.
            starts = zip(self._inits, self._start_shifts, strict=True)
            self._inits = [init if start else self._init for init, start in starts]

    def _read_value(self, optimizer: Optimizer, group: int) -> float:
        value = find_option("ExponentialShift", optimizer, group, self._attr)
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value)
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise TypeError(f"ExponentialShift: expected a number as option {self._attr!r}, got {value!r}")
        return value

    def _check_target(self, init: float) -> None:
        if self._target is None or not init:
            return
        ratio = self._target / init
        if ratio < 0 or (ratio > 1 and self._rate < 1) or (ratio < 1 and self._rate > 1):
            raise ValueError(f"target: a rate of {self._rate} cannot reach {self._target} from {init}")

    def _apply(self, optimizer: Optimizer) -> None:
        for group, init, start in zip(optimizer.param_groups, self._inits, self._start_shifts, strict=True):
            value = self._shifted(init, self._shifts - start)
            if isinstance(group[self._attr], Tensor):
                group[self._attr].fill_(value)  # Compiled and captured optimizers keep a reference to the tensor.
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
