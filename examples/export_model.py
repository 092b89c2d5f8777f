"""Export the best and the last model, load the best one from MLflow: python export_model.py [--epochs 5]"""

from __future__ import annotations

import argparse
import os

# A shell that sets MLFLOW_TRACKING_URI selects another server.
os.environ.setdefault("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")

import mlflow
import torch
from digits import digits, network
from torch import Tensor
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking import extensions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    torch.set_num_threads(1)  # more threads are slower for a small network
    torch.manual_seed(0)
    train, val = digits()
    model = network()

    def evaluate(image: Tensor, label: Tensor) -> None:
        pte.report({"val/accuracy": (model(image).argmax(1) == label).double().mean()})

    images, _ = next(iter(val))
    exported = extensions.export_model(input_example=images[:2], registered_name="digits", best=("val/accuracy", "max"))
    manager = pte.ExtensionsManager(
        model,
        args.epochs,
        [
            extensions.Evaluator(val, model, eval_func=evaluate),
            exported,
            extensions.LogReport(),
            extensions.PrintReport(["epoch", "train/loss", "val/accuracy"]),
        ],
        optimizers=torch.optim.Adam(model.parameters()),
        iters_per_epoch=len(train),
        sinks=["json", "mlflow"],
    )
    with manager:
        for image, label in manager.batches(train):
            with manager.run_iteration(step_optimizers=["main"]):
                loss = F.cross_entropy(model(image), label)
                loss.backward()
                pte.report({"train/loss": loss})

    best = mlflow.pytorch.load_model("models:/digits@best")
    with torch.no_grad():
        accuracies = [(best(image).argmax(1) == label).double().mean() for image, label in val]
    print(f"accuracy of models:/digits@best: {torch.stack(accuracies).mean():.4f}")


if __name__ == "__main__":
    main()
