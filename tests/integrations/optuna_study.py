"""Study of three trials that kills its own process: optuna_study.py FOLDER [TRIAL ITERATION]"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.integrations.optuna import PruningExtension, resume_killed_trials, trial_directory

TRIALS, EPOCHS, LENGTH = 3, 4, 3


def open_study(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.create_study(storage=storage, study_name="study", load_if_exists=True)


def train(trial: optuna.Trial, folder: Path, kill_trial: int, kill_iteration: int) -> float:
    lr = trial.suggest_float("lr", 0.01, 0.1)
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loader = torch.utils.data.DataLoader(torch.rand(4 * LENGTH, 2), batch_size=4, shuffle=True)

    def evaluate(batch: torch.Tensor) -> None:
        pte.report({"val/loss": model(batch).square().mean()})

    manager = pte.ExtensionsManager(
        model,
        EPOCHS,
        [
            extensions.Evaluator(torch.rand(2, 4, 2), model, eval_func=evaluate),
            extensions.LogReport(trigger=(1, "iteration")),
            extensions.snapshot(trigger=(1, "epoch"), n_retains=1),
            PruningExtension(trial, "val/loss"),
        ],
        optimizers=optimizer,
        iters_per_epoch=LENGTH,
        out_dir=trial_directory(folder / "trials", trial),
        group="study",
        params=trial.params,
    )
    manager.resume()
    for batch in manager.batches(loader):
        with manager.run_iteration():
            optimizer.zero_grad()
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            pte.report({"train/loss": loss})
        if (trial.number, manager.iteration) == (kill_trial, kill_iteration):
            os.kill(os.getpid(), signal.SIGKILL)
    return float(manager.run.rows()[-1].values["val/loss"])


def main() -> None:
    folder, kill = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]] or [-1, -1]
    study = open_study(folder)
    print("resumed", resume_killed_trials(study, folder / "trials"))
    done = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
    study.optimize(lambda trial: train(trial, folder, *kill), n_trials=TRIALS - done)


if __name__ == "__main__":
    main()
