"""Accumulate gradients over 4 batches, with mixed precision and clipping: python mixed_precision.py"""

from __future__ import annotations

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

ACCUMULATED = 4


def main() -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inputs = torch.randn(640, 8)
    loader = DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), 8, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1)).to(device)
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")  # bfloat16 on a CPU needs no scaling
    manager = pte.ExtensionsManager(
        model,
        max_epochs=4,
        extensions=[extensions.LogReport(), extensions.PrintReport(), extensions.snapshot()],
        optimizers=optimizer,
        out_dir="mixed_precision",
        state_objects={"scaler": scaler},  # snapshots contain its scale
    )
    manager.resume()
    # An iteration is one batch. Snapshots contain the gradients that are accumulated when they are taken.
    for x, target in manager.iterations(loader):
        with torch.autocast(device, dtype=torch.bfloat16 if device == "cpu" else torch.float16):
            loss = F.mse_loss(model(x.to(device)), target.to(device))
        scaler.scale(loss / ACCUMULATED).backward()
        pte.report({"train/loss": loss})
        if (manager.iteration + 1) % ACCUMULATED == 0:
            scaler.unscale_(optimizer)
            pte.report({"train/gradient_norm": nn.utils.clip_grad_norm_(model.parameters(), 1.0)})
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()


if __name__ == "__main__":
    main()
