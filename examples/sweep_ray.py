"""Sweep with Ray Tune, which starts failed trials again; they resume as the same runs: python sweep_ray.py

With --kill, the first attempt of each trial kills its process after two epochs.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import ray
import torch
from digits import digits, network
from ray import tune
from torch import Tensor
from torch.nn import functional as F

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions

NAME = "digits-tune"


def train(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, val = digits()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)

    def evaluate(image: Tensor, label: Tensor) -> None:
        pte.report({"val/accuracy": (model(image).argmax(1) == label).double().mean()})

    @pte.make_extension(trigger=(1, "epoch"))
    def report_to_tune(manager: pte.Manager) -> None:
        tune.report({"accuracy": float(manager.observation["val/accuracy"]), "iteration": manager.iteration})

    manager = pte.ExtensionsManager(
        model,
        3,  # epochs
        [
            extensions.Evaluator(val, model, eval_func=evaluate),
            extensions.LogReport(),
            extensions.snapshot(),
            report_to_tune,
        ],
        optimizers=optimizer,
        iters_per_epoch=len(train),
        out_dir=tune.get_context().get_trial_dir(),  # the same one in each attempt of a trial
        sinks=["json", MLflowSink(config["store"])],
        group=NAME,
        params={"lr": config["lr"]},
    )
    is_first_attempt = manager.resume() is None  # the snapshot takes the place of a checkpoint of Tune
    for image, label in manager.batches(train):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(image), label)
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})
        if config["kill"] and is_first_attempt and manager.epoch == 2 and manager.run.checkpoints():
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill", action="store_true")
    args = parser.parse_args()
    # The default store of a trial would be in its own working directory.
    store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{Path('mlflow.db').absolute()}")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        train,
        param_space={"lr": tune.grid_search([0.1, 0.01]), "kill": args.kill, "store": store},
        run_config=tune.RunConfig(
            name=NAME, storage_path=str(Path("tune").absolute()), failure_config=tune.FailureConfig(max_failures=1)
        ),
    )
    best = tuner.fit().get_best_result("accuracy", "max")
    print(f"best accuracy {(best.metrics or {})['accuracy']:.3f} in {best.path}")


if __name__ == "__main__":
    main()
