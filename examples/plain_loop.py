"""Train in a plain loop with all extensions: python plain_loop.py [--resume]"""

from __future__ import annotations

import argparse
import signal

import torch
from digits import digits, network
from torch import Tensor
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)  # more threads are slower for a small network
    torch.manual_seed(0)
    train, val = digits()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)

    def evaluate(image: Tensor, label: Tensor) -> None:
        output = model(image)
        pte.report({"val/loss": F.cross_entropy(output, label)})
        pte.report({"val/accuracy": (output.argmax(1) == label).double().mean()})

    manager = pte.ExtensionsManager(
        model,
        args.epochs,
        [
            extensions.Evaluator(val, model, eval_func=evaluate, progress_bar=True),
            extensions.MicroAverage("train/correct", "train/seen", "train/accuracy"),
            extensions.MaxValue("val/accuracy"),
            extensions.observe_lr(optimizer),
            extensions.observe_value("train/momentum", lambda _: optimizer.param_groups[0]["momentum"]),
            extensions.LRScheduler(scheduler),
            pte.ExtensionEntry(extensions.ExponentialShift("weight_decay", 0.5, init=1e-3), trigger=(1, "epoch")),
            extensions.FailOnNonNumber(),
            extensions.ParameterStatistics(model, {"norm": torch.linalg.vector_norm}),
            extensions.ParameterHistogram(model),
            extensions.Monitor(),
            extensions.SystemMetrics(),
            extensions.LogReport(trigger=(15, "iteration")),
            extensions.PrintReport(["epoch", "iteration", "train/loss", "train/accuracy", "val/accuracy", "lr"]),
            extensions.PlotReport(["train/loss", "val/loss"], "epoch", filename="loss.png"),
            extensions.VariableStatisticsPlot(model),
            extensions.ProgressBar(),
            extensions.snapshot(n_retains=2, on_signal=signal.SIGTERM),
        ],
        optimizers=optimizer,
        iters_per_epoch=len(train),
        sinks=["json", "tensorboard", "mlflow"],
        params={"epochs": args.epochs},
    )
    if args.resume:
        manager.resume()
    for image, label in manager.batches(train):
        with manager.run_iteration():
            optimizer.zero_grad()
            output = model(image)
            loss = F.cross_entropy(output, label)
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})
            pte.report({"train/correct": (output.argmax(1) == label).sum(), "train/seen": len(label)})


if __name__ == "__main__":
    main()
