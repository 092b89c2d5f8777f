"""Tests of the warning about an optimizer of which the manager knows neither the state nor the parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions

MESSAGE = "the loop steps Adam, but neither this optimizer nor the model with its parameters was passed to the manager"


class Learner:
    """Object of a user with a model, an optimizer, and a state."""

    def __init__(self) -> None:
        self.parts = SimpleNamespace(model=nn.Linear(1, 1))
        self.optimizer = torch.optim.Adam(self.parts.model.parameters())

    def update(self) -> None:
        self.optimizer.zero_grad()
        self.parts.model(torch.ones(1, 1)).sum().backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.parts.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def train(out: Path, update: Callable[[], object], models: Any = None, iterations: int = 3, **options: Any) -> None:
    saved = extensions.snapshot(trigger=(1, "iteration"), asynchronous=False)
    manager = pte.ExtensionsManager(models or {}, None, [saved], max_iterations=iterations, out_dir=out, **options)
    for _ in manager.iterations():
        update()


@pytest.mark.parametrize("has_model", [False, True], ids=["no model", "another model"])
def test_optimizer_passed_neither_with_nor_without_model_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, has_model: bool
) -> None:
    main = Learner()
    passed: dict[str, Any] = {"models": main.parts.model, "optimizers": main.optimizer} if has_model else {}
    other = Learner()
    train(tmp_path, lambda: (main.update(), other.update()) if has_model else other.update(), **passed)
    (message,) = caplog.messages
    assert MESSAGE in message
    assert "Pass both" in message


def step_new_optimizer() -> Any:
    """Step an optimizer that exists until the next iteration, such as one that finds an adversarial input."""
    inner = Learner()
    inner.update()
    inner.update()
    return inner


def test_optimizer_of_a_single_iteration_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept: list[Any] = []
    train(tmp_path, lambda: kept.append(step_new_optimizer()))
    assert caplog.messages == []


def test_optimizer_within_state_object_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner = Learner()
    train(tmp_path, learner.update, state_objects={"learner": learner})
    assert caplog.messages == []


def test_optimizer_of_another_training_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner, other = Learner(), Learner()
    saved = extensions.snapshot(trigger=(1, "iteration"), asynchronous=False)
    outer = pte.ExtensionsManager(
        *(other.parts.model, None, [saved]),
        max_iterations=3,
        optimizers=other.optimizer,
        out_dir=tmp_path / "outer",
    )
    outer_iterations = outer.iterations()

    def update() -> None:
        learner.update()
        next(outer_iterations, None)
        other.update()

    train(tmp_path / "inner", update, learner.parts.model, optimizers=learner.optimizer)
    next(outer_iterations, None)
    assert caplog.messages == []
