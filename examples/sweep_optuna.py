"""Search hyperparameters with Optuna; start again after a kill to continue: python sweep_optuna.py [--trials 8]"""

from __future__ import annotations

import argparse

import optuna
import torch
from digits import digits, network
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from torch import Tensor
from torch.nn import functional as F

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.integrations.optuna import PruningExtension, resume_killed_trials, trial_directory

STUDY = "digits-sweep"


def objective(trial: optuna.Trial, epochs: int) -> float:
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    momentum = trial.suggest_float("momentum", 0.0, 0.95)
    torch.manual_seed(0)
    train, val = digits()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)

    def evaluate(image: Tensor, label: Tensor) -> None:
        output = model(image)
        pte.report({"val/loss": F.cross_entropy(output, label)})
        pte.report({"val/accuracy": (output.argmax(1) == label).double().mean()})

    manager = pte.ExtensionsManager(
        model,
        epochs,
        [
            extensions.Evaluator(val, model, eval_func=evaluate),
            extensions.LogReport(),
            extensions.snapshot(n_retains=1),
            PruningExtension(trial, "val/loss"),
        ],
        optimizers=optimizer,
        iters_per_epoch=len(train),
        out_dir=trial_directory("trials", trial),
        sinks=["json", "mlflow"],
        group=STUDY,
        params=trial.params,
        tags={"trial": trial.number},
    )
    manager.resume()  # the run of a killed trial
    for image, label in manager.batches(train):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(image), label)
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})
    return float(manager.run.rows()[-1].values["val/loss"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)  # more threads are slower for a small network

    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend("study.log")),
        study_name=STUDY,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
    )
    for number in resume_killed_trials(study, "trials"):
        print(f"resuming trial {number}")
    done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    study.optimize(lambda trial: objective(trial, args.epochs), n_trials=max(0, args.trials - len(done)))
    print(f"best val/loss {study.best_value:.4f} with {study.best_params}")


if __name__ == "__main__":
    main()
