"""A model that torch.compile has wrapped goes by the names of the one within."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._distributed.wrappers import without_exchange, without_wrapper

ROWS = [(torch.ones(2, 3), torch.tensor([0, 1])), (torch.zeros(2, 3), torch.tensor([1, 0]))]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def train(model: Any, directory: Path, epochs: int) -> pte.ExtensionsManager:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager = pte.ExtensionsManager(
        model,
        epochs,
        [extensions.ParameterStatistics(model, {"mean": torch.mean}), extensions.LogReport(), extensions.snapshot()],
        optimizers=optimizer,
        out_dir=directory,
        sinks=[],
    )
    manager.resume()
    for x, target in manager.batches(ROWS):
        with manager.run_iteration(step_optimizers=["main"]):
            loss = nn.functional.cross_entropy(model(x), target)
            loss.backward()
            pte.report({"loss": loss}, model)
    return manager


def test_a_snapshot_and_the_log_have_the_names_of_the_model_within(tmp_path: Path) -> None:
    manager = train(compiled(Net()), tmp_path, 1)
    assert set(torch.load(tmp_path / "snapshot_iter_2")["models"]["main"]) == {"layer.weight", "layer.bias"}
    assert {"main/loss", "layer.weight/data/mean"} <= set(manager.observation)
    assert not [key for key in manager.observation if "_orig_mod" in key]


@pytest.mark.parametrize("first", [True, False])
def test_a_training_goes_on_compiled_or_not(tmp_path: Path, first: bool) -> None:
    train(compiled(Net()) if first else Net(), tmp_path, 1)
    there = torch.load(tmp_path / "snapshot_iter_2")["models"]["main"]["layer.bias"]
    model = Net()
    manager = train(model if first else compiled(model), tmp_path, 2)
    assert manager.iteration == 4
    assert manager.models == {"main": model}
    assert not torch.equal(model.layer.bias, there)


def test_wrappers_within_wrappers_are_taken_off() -> None:
    model = Net()
    for wrapped in (nn.DataParallel(compiled(model)), compiled(nn.DataParallel(model)), compiled(model), model):
        assert without_wrapper(wrapped) is model


def test_what_is_evaluated_stays_compiled_unless_ranks_would_wait_for_one_another() -> None:
    model = Net()
    fast = compiled(model)
    assert without_exchange(fast) is fast
    assert without_exchange(compiled(nn.DataParallel(model))) is model
    assert extensions.Evaluator([torch.ones(1, 3)], fast).eval_func is fast
    assert extensions.Evaluator([torch.ones(1, 3)], fast).get_target("main") is model


def test_an_evaluated_model_is_in_test_mode_within_and_afterwards_as_it_was() -> None:
    model = Net()
    modes: list[bool] = []
    fast = compiled(model)
    evaluator = extensions.Evaluator([torch.ones(1, 3)], fast, lambda x: modes.append(model.training))
    evaluator()
    assert modes == [False]
    assert [model.training, fast.training, model.layer.training] == [True] * 3
