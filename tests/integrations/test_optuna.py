"""Pruning with Optuna, and studies that continue after their process was killed."""

from __future__ import annotations

import datetime
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import pte_tracking as pte
from pte_tracking._store.lock import LockedError
from pte_tracking.integrations.optuna import PruningExtension, resume_killed_trials, trial_directory
from tests.integrations import optuna_ranks, optuna_study
from tests.ranks.forked import on_ranks

ODD_NAME = "a 'study' \"x\" / \\ ü %d {}"


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name=ODD_NAME)


def train(trial: optuna.Trial, folder: Path, losses: Sequence[object]) -> None:
    """Train one iteration per loss."""
    manager = pte.ExtensionsManager(
        {},
        len(losses),
        [PruningExtension(trial, "val/loss")],
        iters_per_epoch=1,
        out_dir=trial_directory(folder, trial),
        group=trial.study.study_name,
    )
    with manager:
        manager.resume()
        while not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"val/loss": losses[manager.iteration]})


def test_trial_worse_than_others_is_pruned_and_its_run_finished(tmp_path: Path) -> None:
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1))

    def objective(trial: optuna.Trial) -> float:
        train(trial, tmp_path, [0.5, 0.4, 0.3] if trial.number == 0 else [0.5, 0.6, 0.7])
        return 0.3

    study.optimize(objective, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert [trial.intermediate_values for trial in study.trials] == [{1: 0.5, 2: 0.4, 3: 0.3}, {1: 0.5, 2: 0.6}]
    _, pruned = pte.open_runs(tmp_path)
    assert (pruned.status, pruned.tags["stopped_by"]) == ("FINISHED", "optuna.TrialPruned")


@pytest.mark.slow
def test_ranks_are_pruned_together(tmp_path: Path) -> None:
    first, second = on_ranks(optuna_ranks.prune, 2, tmp_path)
    assert first == second == [3, "Pruned at iteration 3 with val/loss = 2."]


def test_trial_that_fails_has_failed_run_and_is_not_resumed(study: optuna.Study, tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        train(trial, tmp_path, ["diverged", 1.0][trial.number :])
        return 1.0

    study.optimize(objective, n_trials=2, catch=TypeError)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert resume_killed_trials(study, tmp_path) == []
    assert [run.status for run in pte.open_runs(tmp_path, group=ODD_NAME)] == ["FAILED", "FINISHED"]


def test_interrupted_trial_is_resumed_as_same_run(study: optuna.Study, tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 0, 1)
        with pte.Run(trial_directory(tmp_path, trial), resume=True, params={"lr": lr}) as run:
            run.log_metrics({"loss": 1.0}, trial.number)
            if trial.number == 0:
                raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        study.optimize(objective, n_trials=1)
    (killed,) = pte.open_runs(tmp_path)
    assert resume_killed_trials(study, tmp_path) == [0]
    assert resume_killed_trials(study, tmp_path) == []
    study.optimize(objective, n_trials=1)
    (resumed,) = pte.open_runs(tmp_path)
    assert (killed.id, resumed.status) == (resumed.id, "FINISHED")
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[0].params == study.trials[1].params == resumed.params


def test_trial_of_live_process_is_not_resumed(study: optuna.Study, tmp_path: Path) -> None:
    trial = study.ask()
    assert resume_killed_trials(study, tmp_path) == []  # it may call trial_directory() within a minute
    trial_directory(tmp_path, trial)
    assert resume_killed_trials(study, tmp_path) == []


def test_trial_killed_before_its_directory_is_resumed_after_a_minute(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.ask()
    monkeypatch.setattr("pte_tracking.integrations.optuna._START_TIME", datetime.timedelta(0))
    assert resume_killed_trials(study, tmp_path) == [0]


def test_processes_that_resume_at_once_repeat_each_trial_once(tmp_path: Path) -> None:
    path = str(tmp_path / "study.log")
    studies = [
        optuna.create_study(storage=JournalStorage(JournalFileBackend(path)), study_name="study", load_if_exists=True)
        for _ in range(4)
    ]
    for _ in range(3):
        trial_directory(tmp_path, studies[0].ask())
    with ThreadPoolExecutor(4) as pool:
        killed = list(pool.map(lambda study: resume_killed_trials(study, tmp_path), studies))
    assert sorted(killed) == [[], [], [], [0, 1, 2]]
    assert [trial.state for trial in studies[0].get_trials()] == [TrialState.FAIL] * 3 + [TrialState.WAITING] * 3


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")  # ask() instead of optimize()
def test_trial_repeated_after_missing_heartbeat_has_same_directory(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = RetryHeartbeatStaleTrialCallback()
        storage = RDBStorage(
            f"sqlite:///{tmp_path / 'study.db'}", heartbeat_interval=1, heartbeat_stale_trial_callback=retry
        )
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    path = trial_directory(tmp_path, trial)
    study.tell(trial, state=TrialState.FAIL)
    retry(study, study.get_trials()[0])
    del trial
    assert trial_directory(tmp_path, study.ask()) == path
    storage.engine.dispose()


def test_directory_of_another_study_is_refused(study: optuna.Study, tmp_path: Path) -> None:
    with pte.Run(tmp_path / "trial-0") as run:
        run.log_metrics({"loss": 1.0}, 1)
    with pytest.raises(FileExistsError, match=r"trial-0 exists, but trial 0 of the study .* is new"):
        trial_directory(tmp_path, study.ask())


def test_trial_directory_called_again_returns_same_directory(study: optuna.Study, tmp_path: Path) -> None:
    trial = study.ask()
    path = trial_directory(tmp_path, trial)
    with pte.Run(path) as run:
        run.log_metrics({"loss": 1.0}, 1)
    assert trial_directory(tmp_path, trial) == path


def test_trial_of_another_process_is_refused(study: optuna.Study, tmp_path: Path) -> None:
    trial = study.ask()
    trial_directory(tmp_path, trial)
    with pytest.raises(LockedError):
        trial_directory(tmp_path, optuna.Trial(study, trial._trial_id))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("trial", "loss"), TypeError, "trial: expected an optuna.Trial, got 'trial' of type str"),
        ((None, 1), TypeError, "key: expected a string such as 'val/loss', got 1 of type int"),
    ],
)
def test_pruning_with_wrong_argument_is_explained(
    arguments: tuple[object, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PruningExtension(*arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_study_killed_twice_continues_its_trials_as_same_runs(tmp_path: Path) -> None:
    def run_study(*kill: int) -> int:
        command = [sys.executable, "-m", "tests.integrations.optuna_study", str(tmp_path), *map(str, kill)]
        return subprocess.run(command, timeout=120, check=False).returncode

    assert run_study(1, 8) == -signal.SIGKILL
    killed = pte.open_runs(tmp_path)[1]
    assert killed.status == "KILLED"
    assert run_study(2, 11) == -signal.SIGKILL  # the same trial, repeated as trial 2
    assert run_study() == 0

    study = optuna_study.open_study(tmp_path)
    complete, fail = TrialState.COMPLETE, TrialState.FAIL
    assert [trial.state for trial in study.trials] == [complete, fail, fail, complete, complete]
    repeated = study.trials[3]
    assert study.trials[1].params == study.trials[2].params == repeated.params
    assert list(repeated.intermediate_values) == [3, 6, 9, 12]
    runs = pte.open_runs(tmp_path, group="study")
    assert [run.directory.name for run in runs] == ["trial-0", "trial-1", "trial-4"]
    assert (runs[1].id, runs[1].status, runs[1].params) == (killed.id, "FINISHED", repeated.params)

    uninterrupted = optuna.create_study()
    uninterrupted.enqueue_trial(repeated.params)
    assert optuna_study.train(uninterrupted.ask(), tmp_path / "uninterrupted", -1, -1) == repeated.value
    (reference,) = pte.open_runs(tmp_path / "uninterrupted")
    columns = ["iteration", "train/loss", "val/loss"]
    assert runs[1].frame()[columns].equals(reference.frame()[columns])
    assert reference.frame()["iteration"].tolist() == list(range(1, 13))
