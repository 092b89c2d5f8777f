"""Training with every extension, for the documentation pictures: ``python every_extension.py OUT_DIR``.

The script requires ``examples/digits.py`` in the same directory.
"""

from __future__ import annotations

import math
import sys

import torch
from digits import digits, network
from ignite.engine import create_supervised_evaluator
from ignite.metrics import ConfusionMatrix, mIoU
from torch import Tensor
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking import extensions

EPOCHS = 12


def main(out_dir: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, val = digits()
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    best = extensions.MaxValue("val/accuracy")
    overlap = create_supervised_evaluator(model, metrics={"overlap": mIoU(ConfusionMatrix(10))})

    def evaluate(image: Tensor, label: Tensor) -> None:
        output = model(image)
        pte.report({"val/loss": F.cross_entropy(output, label)})
        pte.report({"val/accuracy": (output.argmax(1) == label).double().mean()})

    def best_so_far(_: object) -> float:
        try:
            return best.best_value
        except RuntimeError:  # The first epoch is not complete yet.
            return math.nan

    def make_plot(name: str, *keys: str, every: pte.extension.TriggerLike = (1, "epoch")) -> extensions.PlotReport:
        return extensions.PlotReport(keys, filename=f"{name}.png", trigger=every, postprocess=shrink_figure)

    def shrink_figure(figure: object, axes: object, summary: object) -> None:
        figure.set_size_inches(6, 2.6)  # type: ignore[attr-defined]

    manager = pte.ExtensionsManager(
        {"main": model},
        EPOCHS,
        [
            extensions.Evaluator([*val] * 60, model, eval_func=evaluate, progress_bar=True),
            extensions.IgniteEvaluator(overlap, val, model),
            extensions.MicroAverage("train/correct", "train/seen", "train/accuracy"),
            # A higher priority than that of the next extension, which reads the best value.
            pte.ExtensionEntry(best, priority=pte.PRIORITY_EDITOR + 1),
            pte.ExtensionEntry(
                extensions.observe_value("val/accuracy/best", best_so_far), priority=pte.PRIORITY_EDITOR
            ),
            extensions.observe_lr(optimizer),
            extensions.observe_value("weight_decay", lambda _: optimizer.param_groups[0]["weight_decay"]),
            extensions.LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)),
            pte.ExtensionEntry(extensions.ExponentialShift("weight_decay", 0.7, init=2e-3), trigger=(1, "epoch")),
            extensions.FailOnNonNumber(),
            extensions.ParameterStatistics(model, {"norm": torch.linalg.vector_norm}),
            extensions.ParameterHistogram(model),
            extensions.Monitor(),
            extensions.SystemMetrics(),
            extensions.ModelSummary(),
            extensions.LogReport(),
            extensions.PrintReport(
                ["epoch", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/overlap"]
            ),
            make_plot("loss", "train/loss", "val/loss", every=(15, "iteration")),
            make_plot("accuracy", "train/accuracy", "val/accuracy", "val/accuracy/best", "val/overlap"),
            make_plot("schedules", "lr", "weight_decay", every=(5, "iteration")),
            make_plot("statistics", "0.weight/data/norm", "0.weight/grad/norm"),
            extensions.VariableStatisticsPlot(model, filename="variables.png"),
            extensions.ProgressBar(),
            extensions.snapshot(n_retains=3, keep_best=("val/accuracy", "max", 1)),
            extensions.snapshot_object(model, "model_of_epoch_{.epoch}", trigger=(6, "epoch")),
        ],
        optimizers=optimizer,
        iters_per_epoch=len(train),
        out_dir=out_dir,
        sinks=["json", "tensorboard"],
        params={"lr": 3e-3},
    )
    for image, label in manager.batches(train):
        with manager.run_iteration(step_optimizers=["main"]):
            output = model(image)
            loss = F.cross_entropy(output, label)
            loss.backward()
            correct = (output.argmax(1) == label).sum()
            pte.report({"train/loss": loss, "train/correct": correct, "train/seen": len(label)})


if __name__ == "__main__":
    main(sys.argv[1])
