"""Evaluate with Ignite's metrics after each epoch, in a handler of EPOCH_COMPLETED: python ignite_epochs.py"""

from __future__ import annotations

import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, Loss
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

EPOCHS = 5


def main() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(300, 8)
    data = TensorDataset(inputs, (inputs.sum(1) > 0).long())
    train, val = TensorDataset(*data[:200]), TensorDataset(*data[200:])
    model = nn.Linear(8, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)

    trainer = create_supervised_trainer(model, optimizer, F.cross_entropy)
    evaluator = create_supervised_evaluator(model, metrics={"loss": Loss(F.cross_entropy), "accuracy": Accuracy()})

    @trainer.on(Events.ITERATION_COMPLETED)
    def report_loss(engine: Engine) -> None:
        pte.report({"train/loss": engine.state.output})

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate(engine: Engine) -> None:
        pte.report({"train/lr": scheduler.get_last_lr()[0]})
        scheduler.step()
        evaluator.run(DataLoader(val, 50))
        pte.report({f"val/{name}": value for name, value in evaluator.state.metrics.items()})

    manager = pte.IgniteExtensionsManager(
        trainer,
        model,
        EPOCHS,
        [
            extensions.LogReport(),
            extensions.PrintReport(["epoch", "train/loss", "val/loss", "val/accuracy", "train/lr"]),
            extensions.snapshot(n_retains=1, keep_best=("val/loss", "min", 1)),
        ],
        optimizers=optimizer,
        out_dir="ignite_epochs",
        state_objects={"scheduler": scheduler},  # The handler steps it.
    )
    manager.resume()
    trainer.run(DataLoader(train, 20, shuffle=True), max_epochs=EPOCHS)


if __name__ == "__main__":
    main()
