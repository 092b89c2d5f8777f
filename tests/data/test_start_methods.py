"""Workers of data loaders, which start differently on Linux, macOS, and Windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def train(directory: Path, method: str | None) -> list[tuple[int, float]]:
    """Train with two workers, or without workers. Return the logged losses."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = TensorDataset(torch.arange(12.0).unsqueeze(1))
    loader = DataLoader(data, 3, num_workers=2 if method else 0, multiprocessing_context=method)
    report = extensions.LogReport(trigger=(1, "iteration"))
    with pte.ExtensionsManager(
        model, 2, [report], optimizers=optimizer, iters_per_epoch=4, out_dir=directory, sinks=["json"]
    ) as manager:
        for (batch,) in manager.batches(loader):
            with manager.run_iteration():
                optimizer.zero_grad()
                loss = (model(batch) - batch).square().mean()
                loss.backward()
                optimizer.step()
                pte.report({"loss": loss})
    return [(row["iteration"], row["loss"]) for row in report.log]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_training_with_workers_of_every_start_method_equals_training_without(method: str, tmp_path: Path) -> None:
    expected = train(tmp_path / "without", None)
    assert len(expected) == 8
    assert train(tmp_path / "with", method) == expected
