"""Objects that contain optimizers of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lookahead:
    """Object that averages the steps of an optimizer, and has only the methods that a manager requires."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        self.slow: list[Tensor] = []
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        self.inner.step()
        self.inner.zero_grad()
        self.steps += 1
        parameters = [parameter for group in self.inner.param_groups for parameter in group["params"]]
        self.slow = self.slow or [parameter.clone() for parameter in parameters]
        if self.steps % 3 == 0:
            for slow, parameter in zip(self.slow, parameters, strict=True):
                parameter.copy_(slow.lerp_(parameter, 0.5))

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict(), "slow": self.slow, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        self.slow, self.steps = state["slow"], state["steps"]


class SharpnessAware(Optimizer):
    """Optimizer that steps another one, whose state its own state does not contain."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, {})
        self.base_optimizer = torch.optim.NAdam(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["norm"] = parameter.grad.norm()
        self.base_optimizer.step()


class Several:
    """Object with a list of optimizers."""

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers = optimizers

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"all": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, state["all"], strict=True):
            optimizer.load_state_dict(saved)
