"""Fine-tune the head first, and the whole network from the third epoch: python unfreezing.py"""

from __future__ import annotations

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(400, 8)
    loader = DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), 20, shuffle=True)
    body, head = nn.Sequential(nn.Linear(8, 32), nn.ReLU()), nn.Linear(32, 2)
    model = nn.Sequential(body, head)
    # All parameters belong to the optimizer from the beginning. It skips those without a gradient.
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    body.requires_grad_(False)

    @pte.make_extension(trigger=(1, "epoch"))
    def unfreeze(manager: pte.Manager) -> None:
        if manager.epoch == 2:
            body.requires_grad_(True)  # snapshots contain this setting

    manager = pte.ExtensionsManager(
        model,
        max_epochs=4,
        extensions=[unfreeze, *extensions.defaults()],
        optimizers=optimizer,
        out_dir="unfreezing",
    )
    manager.resume()
    for x, target in manager.iterations(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss, "train/frozen": not next(body.parameters()).requires_grad})


if __name__ == "__main__":
    main()
