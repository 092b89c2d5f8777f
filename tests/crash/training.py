"""Small training for the crash trials, with every kind of state that a resume must restore."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler, TensorDataset
from tqdm import tqdm

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions

EPOCHS = 16
ITERATIONS_PER_EPOCH = 8
ITERATION_SECONDS = 0.005

Kind = Literal["shuffled", "accumulated", "stream"]
KINDS: list[Kind] = ["shuffled", "accumulated", "stream"]


class CountingSampler(Sampler[int]):
    """Sampler with a NumPy generator and a count of its passes, of which torch knows nothing."""

    def __init__(self, length: int) -> None:
        self.length, self.passes, self.generator = length, 0, np.random.default_rng(6)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter(np.roll(self.generator.permutation(self.length), self.passes).tolist())


class Stream(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Data without a length, in an order of their own generator."""

    def __init__(self, data: TensorDataset) -> None:
        self.data, self.generator = data, random.Random(7)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return (self.data[index] for index in self.generator.sample(range(len(self.data)), len(self.data)))


def make_loader(kind: Kind, data: TensorDataset) -> Iterable[Any]:
    if kind == "shuffled":
        return DataLoader(data, batch_size=8, shuffle=True)
    if kind == "stream":
        return DataLoader(Stream(data), batch_size=8)
    sampler = BatchSampler(CountingSampler(len(data)), 8, drop_last=False)
    return tqdm(DataLoader(data, sampler=sampler, batch_size=None), disable=True)


def train(folder: Path, on_rewind: Literal["keep", "fork"], kind: Kind) -> None:
    """Start or resume the run in ``folder``, and write the final weights to ``weights.json``.

    Args:
        folder: Folder of the run and its MLflow database.
        on_rewind: Rewind mode of the MLflow sink.
        kind: Loader, optimizer, and number of batches for each step of the optimizer.
    """
    torch.set_num_threads(1)
    torch.manual_seed(3)
    random.seed(4)
    np.random.seed(5)
    data = TensorDataset(torch.randn(64, 6), torch.randint(0, 3, (64,)))
    loader = make_loader(kind, data)
    batches_per_step = 3 if kind == "accumulated" else 1  # not a divisor of the epoch or of the snapshot interval
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    if kind == "accumulated":
        model.bfloat16()  # NAdam then has states of two types
    optimizer_class = {"shuffled": torch.optim.Adam, "accumulated": torch.optim.NAdam, "stream": torch.optim.ASGD}[kind]
    optimizer = optimizer_class(model.parameters(), lr=0.01)
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
        iters_per_epoch=ITERATIONS_PER_EPOCH,
        out_dir=folder / "result",
        sinks=["json", "tensorboard", MLflowSink(f"sqlite:///{folder / 'mlflow.db'}", on_rewind=on_rewind)],
        params={"lr": 0.01, "seed": 3},
        state_objects={"scheduler": scheduler},
        close_timeout=60,
    )
    manager.resume()
    for image, label in manager.batches(loader):
        with manager.run_iteration():
            noise = random.random() * 0.01 + float(np.random.rand()) * 0.01
            dtype = next(model.parameters()).dtype
            loss = F.cross_entropy(model((image + noise).to(dtype)), label)
            loss.backward()
            if (manager.iteration + 1) % batches_per_step == 0:
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            pte.report({"train/loss": loss, "train/noise": noise})
            if manager.iteration % 7 == 0:
                pte.report({"rare": manager.iteration})
            time.sleep(ITERATION_SECONDS)
    weights = {name: value.flatten().tolist() for name, value in model.state_dict().items()}
    (folder / "weights.json").write_text(json.dumps(weights))
