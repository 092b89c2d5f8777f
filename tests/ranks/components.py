"""Models, managers, and readers that the rank tests share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._snapshots import shards
from pte_tracking._snapshots.file import load


def make_manager(
    out: Path, *extension_list: Any, models: Any = None, epochs: int = 1, **options: Any
) -> pte.ExtensionsManager:
    return pte.ExtensionsManager({} if models is None else models, epochs, extension_list, out_dir=out, **options)


def make_sharded_net(width: int = 8) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 1))
    fully_shard(net)
    return net, torch.optim.Adam(net.parameters(), 0.1)


class RankDependentNet(nn.Module):
    """Model whose state differs between ranks: running means, variances and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layers(x)
        return output


def shard_layers(net: nn.Module) -> nn.Module:
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(net)
    return net


def make_net(wrap: Callable[[nn.Module], nn.Module]) -> tuple[nn.Module, torch.optim.Optimizer]:
    net = wrap(RankDependentNet())
    return net, torch.optim.Adam(net.parameters(), 0.01)


def make_training_manager(
    out: Path, net: nn.Module, optimizer: torch.optim.Optimizer, snapshot: Any, epochs: int = 2
) -> pte.ExtensionsManager:
    sinks = os.environ.get("SINKS", "json").split(",")
    # After an evaluation, the parameters of fully_shard stay gathered. Snapshots must handle this state.
    evaluator = extensions.Evaluator([torch.ones(2, 4)], net, lambda x: pte.report({"val/output": net(x).mean()}))
    return make_manager(
        out,
        evaluator,
        extensions.LogReport(trigger=(1, "iteration")),
        snapshot,
        models=net,
        epochs=epochs,
        optimizers=optimizer,
        sinks=sinks,
    )


def train_net(
    manager: pte.ExtensionsManager, net: nn.Module, optimizer: torch.optim.Optimizer, fail_in: int | None = None
) -> None:
    """Train until the manager stops, or raise InterruptedError in iteration ``fail_in``."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    dataset = TensorDataset(x, x.sum(1, keepdim=True))
    loader = DataLoader(dataset, 2, sampler=DistributedSampler(dataset, seed=3))
    for inputs, targets in manager.batches(loader):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(inputs), targets)
            loss.backward()
            optimizer.step()
            pte.report({"loss": loss})
            if manager.iteration == fail_in:
                raise InterruptedError


def fill_weights(net: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)


def update_net(net: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    width = net[0].in_features
    net(torch.ones(1, width)).sum().backward()
    optimizer.step()


def read_weights(snapshot: Path) -> list[torch.Tensor]:
    """Read all weights of a sharded snapshot in the current process."""
    assert load(snapshot)
    return list(shards.gather_shards(snapshot)["models"]["main"].values())


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Read the rows of the JSON log without ``elapsed_time``."""
    loaded = json.loads((out / "log").read_text())
    return [{key: value for key, value in row.items() if key != "elapsed_time"} for row in loaded]


def make_single_process_manager(out: Path) -> pte.ExtensionsManager:
    """Create a manager without torch.distributed and with an unsharded model."""
    net = RankDependentNet()
    snapshot = extensions.snapshot(trigger=(2, "iteration"))
    return make_training_manager(out, net, torch.optim.Adam(net.parameters(), 0.01), snapshot, epochs=3)


def is_equal(first: Any, second: Any) -> bool:
    """Return whether two nested states are equal, including every tensor element."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(is_equal(first[key], second[key]) for key in first)
    return bool(first == second)
