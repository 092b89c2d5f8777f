"""Wrapped models: names without prefixes, snapshots, and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._distributed.wrappers import rank_local_model, unwrap

ROWS = [(torch.ones(2, 3), torch.tensor([0, 1])), (torch.zeros(2, 3), torch.tensor([1, 0]))]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def compile_model(model: nn.Module) -> Any:
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


def test_compiled_model_snapshot_and_log_omit_wrapper_prefix(tmp_path: Path) -> None:
    manager = train(compile_model(Net()), tmp_path, 1)
    assert set(torch.load(tmp_path / "snapshot_iter_2")["models"]["main"]) == {"layer.weight", "layer.bias"}
    assert {"main/loss", "layer.weight/data/mean"} <= set(manager.observation)
    assert not [key for key in manager.observation if "_orig_mod" in key]


@pytest.mark.parametrize("compile_first", [True, False])
def test_resume_switches_between_compiled_and_plain_model(tmp_path: Path, compile_first: bool) -> None:
    train(compile_model(Net()) if compile_first else Net(), tmp_path, 1)
    saved_bias = torch.load(tmp_path / "snapshot_iter_2")["models"]["main"]["layer.bias"]
    model = Net()
    manager = train(model if compile_first else compile_model(model), tmp_path, 2)
    assert manager.iteration == 4
    assert manager.models == {"main": model}
    assert not torch.equal(model.layer.bias, saved_bias)


def test_unwrap_nested_wrappers_returns_inner_model() -> None:
    model = Net()
    for wrapped in (
        nn.DataParallel(compile_model(model)),
        compile_model(nn.DataParallel(model)),
        compile_model(model),
        model,
    ):
        assert unwrap(wrapped) is model


def test_rank_local_model_keeps_compilation_and_drops_data_parallel() -> None:
    model = Net()
    compiled_model = compile_model(model)
    assert rank_local_model(compiled_model) is compiled_model
    assert rank_local_model(compile_model(nn.DataParallel(model))) is model
    assert extensions.Evaluator([torch.ones(1, 3)], compiled_model).eval_func is compiled_model
    assert extensions.Evaluator([torch.ones(1, 3)], compiled_model).get_target("main") is model


def test_evaluator_compiled_model_uses_eval_mode_and_restores_train_mode() -> None:
    model = Net()
    modes: list[bool] = []
    compiled_model = compile_model(model)
    evaluator = extensions.Evaluator([torch.ones(1, 3)], compiled_model, lambda x: modes.append(model.training))
    evaluator()
    assert modes == [False]
    assert [model.training, compiled_model.training, model.layer.training] == [True] * 3
