"""Train on labeled and unlabeled batches together: python several_loaders.py"""

from __future__ import annotations

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(1000, 8)
    labeled = DataLoader(TensorDataset(inputs[:200], (inputs[:200].sum(1) > 0).long()), 10, shuffle=True)
    unlabeled = DataLoader(TensorDataset(inputs[200:]), 40, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    manager = pte.ExtensionsManager(
        model,
        max_epochs=4,
        extensions=extensions.defaults(),
        optimizers=optimizer,
        out_dir="several_loaders",
    )
    manager.resume()
    # A pass ends with the shortest loader. A resume continues both loaders at their next batches.
    for batch in manager.iterations({"labeled": labeled, "unlabeled": unlabeled}):
        x, target = batch["labeled"]
        (plain,) = batch["unlabeled"]
        noisy = plain + 0.1 * torch.randn_like(plain)
        supervised = F.cross_entropy(model(x), target)
        consistency = F.mse_loss(model(noisy).softmax(1), model(plain).softmax(1).detach())
        optimizer.zero_grad()
        (supervised + consistency).backward()
        optimizer.step()
        pte.report({"loss/supervised": supervised, "loss/consistency": consistency})


if __name__ == "__main__":
    main()
