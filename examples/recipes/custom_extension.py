"""Keep an average of the weights, as an extension that snapshots save: python custom_extension.py"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions


class WeightAverage(pte.Extension):
    """Extension that averages the weights of a model after each iteration.

    Args:
        model: The model.
        decay: Weight of the previous average, from 0 to 1.
    """

    trigger = (1, "iteration")

    def __init__(self, model: nn.Module, decay: float = 0.9) -> None:
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def __call__(self, manager: pte.Manager) -> None:
        self.average.update_parameters(manager.models["main"])

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average.load_state_dict(state)


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(400, 8)
    loader = DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), 20, shuffle=True)
    model = nn.Linear(8, 2)
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    average = WeightAverage(model)
    manager = pte.ExtensionsManager(
        model,
        max_epochs=3,
        extensions=[average, *extensions.defaults()],
        optimizers=optimizer,
        out_dir="custom_extension",
    )
    manager.resume()
    for x, target in manager.iterations(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            pte.report({"train/loss": loss, "average/loss": F.cross_entropy(average.average(x), target)})


if __name__ == "__main__":
    main()
