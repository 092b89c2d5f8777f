"""Save the state on SIGTERM, and continue in the next start: python preemption.py, or sbatch slurm.sh"""

from __future__ import annotations

import argparse
import os
import signal

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out-dir", default="preemption")
    args = parser.parse_args()

    torch.manual_seed(0)
    inputs = torch.randn(1000, 8)
    loader = DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), 20, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    manager = pte.ExtensionsManager(
        model,
        max_epochs=args.epochs,
        extensions=[
            extensions.LogReport(),
            extensions.PrintReport(),
            # Every 5 epochs, in case the node fails, and at the signal, in the middle of an epoch.
            extensions.snapshot(trigger=(5, "epoch"), n_retains=2, on_signal=signal.SIGTERM),
        ],
        optimizers=optimizer,
        out_dir=args.out_dir,
    )
    checkpoint = manager.resume()
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    print(f"iteration {checkpoint.step if checkpoint else 0}, requeues of the job: {restarts}", flush=True)
    for x, target in manager.iterations(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        pte.report({"train/loss": loss})


if __name__ == "__main__":
    main()
