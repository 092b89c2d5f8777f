"""Pruning with Optuna, and studies that continue their killed trials as the same runs."""

from __future__ import annotations

import datetime
import os
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from pte_tracking._store.dependencies import required_by
from pte_tracking._store.discovery import find_run
from pte_tracking._store.layout import check_directory
from pte_tracking._store.lock import Lock, is_held
from pte_tracking._store.manifest import RunNotFoundError
from pte_tracking._store.printable import describe_value
from pte_tracking._store.status import read_status

with required_by("pte_tracking.integrations.optuna", "optuna", "'pte-tracking[optuna]'"):
    import optuna
    from optuna.storages import RetryHeartbeatStaleTrialCallback
    from optuna.trial import FrozenTrial, Trial, TrialState

if TYPE_CHECKING:
    from pte_tracking._interface.extension import Manager, Unit

_STUDY_LOCK = ".study.lock"
_LOCK_SECONDS = 60.0  # A process keeps the lock while it reads a study.
#: Time in which a trial that has started calls trial_directory(). Optuna samples parameters before.
_START_TIME = datetime.timedelta(minutes=1)
#: Directory of each trial that runs in this process.
_directories: weakref.WeakKeyDictionary[Trial, Path] = weakref.WeakKeyDictionary()


class PruningExtension:
    """Extension that reports a metric to a trial, and stops the training if the pruner of the study decides so.

    The metric is reported whenever the extension runs and the metric was reported in this iteration, so with each
    evaluation. The step in the study is the iteration. A step that the trial has already, because it continues a killed
    trial, is skipped. ``optuna.TrialPruned`` stops the training: the run is FINISHED, and its tag ``stopped_by``
    contains ``optuna.TrialPruned``.

    In distributed training, rank 0 reports and decides for all ranks. The other ranks pass None as ``trial``.

    Args:
        trial: Trial of the study. None on ranks other than 0.
        key: Key of the metric in the observation, such as ``"val/loss"``.
        trigger: When the extension runs. Defaults to each iteration, which suits metrics of an evaluation. For a metric
            that is reported in each iteration, pass an interval such as ``(1, "epoch")``.

    Raises:
        TypeError: If ``trial`` is not a trial, or ``key`` is not a string.

    Example:
        >>> import optuna
        >>> import pte_tracking as pte
        >>> from pte_tracking.integrations.optuna import PruningExtension
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> def objective(trial):
        ...     pruning = PruningExtension(trial, "val/loss")
        ...     with pte.ExtensionsManager({}, 5, [pruning], iters_per_epoch=1, sinks=[]) as manager:
        ...         while not manager.stop_trigger:
        ...             with manager.run_iteration():
        ...                 pte.report({"val/loss": trial.number})
        ...     return trial.number
        >>> study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=2))
        >>> study.optimize(objective, n_trials=2)
        >>> [(trial.state.name, len(trial.intermediate_values)) for trial in study.trials]
        [('COMPLETE', 5), ('PRUNED', 2)]
    """

    rank_zero_only = False  # All ranks stop together.

    def __init__(self, trial: Trial | None, key: str, trigger: tuple[float, Unit] = (1, "iteration")) -> None:
        if trial is not None and not isinstance(trial, Trial):
            raise TypeError(f"trial: expected an optuna.Trial, got {describe_value(trial)}")
        if not isinstance(key, str):
            raise TypeError(f"key: expected a string such as 'val/loss', got {describe_value(key)}")
        self.trigger = trigger
        self._trial = trial
        self._key = key
        self._known_steps: frozenset[int] = frozenset()

    def initialize(self, manager: Manager) -> None:
        """Read the steps that the trial has already.

        Args:
            manager: The manager.

        Raises:
            ValueError: If rank 0 has no trial.
        """
        if manager.world.rank != 0:
            return
        if self._trial is None:
            raise ValueError("trial: expected an optuna.Trial on rank 0, got None")
        self._known_steps = frozenset(_freeze(self._trial).intermediate_values)

    def __call__(self, manager: Manager) -> None:
        """Report the metric, and stop the training if the trial should be pruned.

        Args:
            manager: The manager.

        Raises:
            optuna.TrialPruned: If the trial should be pruned.
        """
        value = manager.observation.get(self._key)
        if value is None:  # on all ranks, because an evaluation reports on all ranks
            return
        should_prune = False
        if manager.world.rank == 0 and self._trial is not None:
            if manager.iteration not in self._known_steps:
                self._trial.report(float(value), manager.iteration)
            should_prune = self._trial.should_prune()
        if manager.world.broadcast_flag(should_prune):
            raise optuna.TrialPruned(f"Pruned at iteration {manager.iteration} with {self._key} = {float(value):.6g}.")


def trial_directory(directory: str | os.PathLike[str], trial: Trial) -> Path:
    """Return the run directory of a trial: ``trial-<number>`` in the directory of the study.

    A trial that repeats a killed trial gets the directory of that trial, so ``manager.resume()`` continues its
    run. The trial counts as running until this process ends or the trial is deleted; see :func:`resume_killed_trials`.

    Args:
        directory: Directory of the study, which is created if it does not exist. Each study needs its own.
        trial: Trial that runs in this process.

    Returns:
        Absolute path of the run directory.

    Raises:
        FileExistsError: If the run directory contains a run of another study.
        RuntimeError: If another process runs the trial.

    Example:
        >>> import tempfile
        >>> import optuna
        >>> from pte_tracking.integrations.optuna import trial_directory
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study()
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     trial_directory(directory, study.ask()).name
        'trial-0'
    """
    check_directory("directory", directory)
    root = Path(os.path.abspath(directory))
    root.mkdir(parents=True, exist_ok=True)
    frozen = _freeze(trial)
    path = _run_directory(root, frozen)
    if _directories.get(trial) == path:
        return path
    if "failed_trial" not in frozen.system_attrs and (path / "run.json").exists():
        raise FileExistsError(
            f"{path} exists, but trial {trial.number} of the study {trial.study.study_name!r} is new, so the run in it "
            "belongs to another study. Choose another directory for this study, or move the earlier runs."
        )
    lock = Lock(_lock_path(root, frozen))
    weakref.finalize(trial, lock.release)
    _directories[trial] = path
    return path


def resume_killed_trials(study: optuna.Study, directory: str | os.PathLike[str]) -> list[int]:
    """Let the next trials of a study continue the trials whose processes were killed.

    Call this function before ``study.optimize()``. A trial that is RUNNING in the study, but in no live process, is set
    to FAIL, as Optuna does after a missing heartbeat. So is a trial that an interrupt stopped. A new trial with the
    same parameters and intermediate values is enqueued, and :func:`trial_directory` returns the same run directory for
    it. Several processes may call this function at the same time, and while others run trials of the study.

    The processes of the trials have to call :func:`trial_directory`, within a minute after the start of the trial, and
    the file system has to support locks. A trial that was killed before is resumed when it is a minute old.

    Args:
        study: Study with a storage that survives the process, such as ``JournalStorage`` or ``RDBStorage``.
        directory: Directory of the study, as passed to :func:`trial_directory`.

    Returns:
        Numbers of the killed trials, in ascending order.

    Raises:
        RuntimeError: If another process does not finish this function within a minute.

    Example:
        >>> import tempfile
        >>> import optuna
        >>> from pte_tracking.integrations.optuna import resume_killed_trials, trial_directory
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study()
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = trial_directory(directory, study.ask())  # the trial is deleted, as if its process was killed
        ...     print(resume_killed_trials(study, directory))
        ...     trial = study.ask()
        ...     print(trial.number, trial_directory(directory, trial).name)
        [0]
        1 trial-0
    """
    check_directory("directory", directory)
    root = Path(os.path.abspath(directory))
    root.mkdir(parents=True, exist_ok=True)
    lock = Lock(root / _STUDY_LOCK, timeout=_LOCK_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            retry = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)
        trials = study.get_trials()
        repeated = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
        killed = [trial for trial in trials if trial.number not in repeated and _is_killed(root, trial)]
        for trial in killed:
            if trial.state is TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
            retry(study, trial)
        return [trial.number for trial in killed]
    finally:
        lock.release()


def _is_killed(root: Path, trial: FrozenTrial) -> bool:
    if trial.state is TrialState.RUNNING:
        path = _lock_path(root, trial)
        if path.exists():
            return not is_held(path)
        return trial.datetime_start is None or trial.datetime_start < datetime.datetime.now() - _START_TIME
    if trial.state is not TrialState.FAIL:
        return False
    try:  # Optuna sets a trial that an interrupt stops to FAIL.
        path = _run_directory(root, trial)
        find_run(path)
        return read_status(path) == "KILLED"
    except RunNotFoundError:
        return False


def _freeze(trial: Trial) -> FrozenTrial:
    return trial.study.get_trials(deepcopy=False)[trial.number]


def _run_directory(root: Path, trial: FrozenTrial) -> Path:
    # RetryHeartbeatStaleTrialCallback.retried_trial_number() reads this attribute and warns that it is experimental.
    return root / f"trial-{trial.system_attrs.get('failed_trial', trial.number)}"


def _lock_path(root: Path, trial: FrozenTrial) -> Path:
    return root / f".trial-{trial.number}.lock"
