"""Small training for the crash trials, with every kind of state that a resume must restore."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions

EPOCHS = 16
ITERATION_SECONDS = 0.005


def train(folder: Path, on_rewind: Literal["keep", "fork"]) -> None:
    """Start or resume the run in ``folder``, and write the final weights to ``weights.json``."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    random.seed(4)
    np.random.seed(5)
    data = TensorDataset(torch.randn(64, 6), torch.randint(0, 3, (64,)))
    loader = DataLoader(data, batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.9)

    manager = pte.ExtensionsManager(
        {"main": model},
        EPOCHS,
        [
            extensions.LogReport(trigger=(3, "iteration")),
            extensions.ExponentialShift("weight_decay", 0.99, init=0.01),
            extensions.observe_lr(),
            extensions.snapshot(trigger=(5, "iteration"), n_retains=3),
        ],
        optimizers={"main": optimizer},
        iters_per_epoch=len(loader),
        out_dir=folder / "result",
        sinks=["json", "tensorboard", MLflowSink(f"sqlite:///{folder / 'mlflow.db'}", on_rewind=on_rewind)],
        params={"lr": 0.01, "seed": 3},
        state_objects={"scheduler": scheduler},
        close_timeout=60,
    )
    manager.resume()
    for image, label in manager.batches(loader):
        with manager.run_iteration():
            optimizer.zero_grad()
            noise = random.random() * 0.01 + float(np.random.rand()) * 0.01
            loss = F.cross_entropy(model(image + noise), label)
            loss.backward()
            optimizer.step()
            scheduler.step()
            pte.report({"train/loss": loss, "train/noise": noise})
            if manager.iteration % 7 == 0:
                pte.report({"rare": manager.iteration})
            time.sleep(ITERATION_SECONDS)
    weights = {name: value.flatten().tolist() for name, value in model.state_dict().items()}
    (folder / "weights.json").write_text(json.dumps(weights))
