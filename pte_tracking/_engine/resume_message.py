"""Message about a resume: the snapshot, the iteration, and whether anything is left to train."""

from __future__ import annotations

import logging
from typing import Protocol

from pte_tracking._runs.run import Run
from pte_tracking._runs.summary import read_params
from pte_tracking._store.events import Checkpoint, Scalar
from pte_tracking._store.layout import JOURNAL

_logger = logging.getLogger("pte_tracking")
_MAX_DIFFERENCES = 5


class ResumedTraining(Protocol):
    """Training that was resumed."""

    @property
    def iteration(self) -> int: ...

    @property
    def run(self) -> Run: ...

    @property
    def length_in_iterations(self) -> int | None: ...


def log_resume(training: ResumedTraining, checkpoint: Checkpoint, stop: tuple[str, str] | None) -> None:
    """Log in one line what was resumed, or that nothing is left to train.

    Args:
        training: The manager, after the resume.
        checkpoint: The checkpoint that was restored.
        stop: How the training ended at the snapshot, and what to change to continue it. None if it was not complete.
    """
    run = training.run
    if stop is None:
        length = training.length_in_iterations
        _logger.info(
            "%s: resumed from %s at iteration %d%s.",
            run.directory,
            checkpoint.path,
            training.iteration,
            "" if length is None else f" of {length}",
        )
        if checkpoint.path.endswith("_on_error"):
            _logger.warning(
                "%s: %s was saved after an exception. If the exception occurred in an iteration, the batch of this "
                "iteration is not used again, and the models may contain a part of its update. Random numbers that "
                "were drawn before the exception are not drawn again. To repeat the iteration, resume from an earlier "
                "snapshot.",
                *(run.directory, checkpoint.path),
            )
        return
    end, remedy = stop
    differences = _differing_params(run)
    if not differences:
        _logger.info(
            "%s: the training is complete at iteration %d%s, so nothing is left to train. To continue, %s.",
            *(run.directory, training.iteration, end, remedy),
        )
        return
    _logger.warning(
        "%s: the training is complete at iteration %d%s, so nothing is left to train, but the parameters of this start "
        "differ: %s. To continue this run, %s. To train a new run with them, choose another out_dir.",
        *(run.directory, training.iteration, end, "; ".join(differences), remedy),
    )


def log_restart(run: Run) -> None:
    """Log that a run without a usable snapshot restarts.

    Args:
        run: The run.
    """
    known = "usable snapshot" if run.checkpoints() else "snapshot"
    _logger.info("%s: the run has no %s, so it restarts at iteration 0.", run.directory, known)


def _differing_params(run: Run) -> list[str]:
    if not (run.directory / JOURNAL).exists():  # a snapshot from elsewhere, whose journal is not copied yet
        return []
    recorded, current = read_params(run.directory), run.params
    names = [name for name in (recorded | current) if name in current and recorded.get(name) != current[name]]
    described = [f"{name} was {_describe(recorded, name)} and is {_describe(current, name)}" for name in names]
    if len(described) > _MAX_DIFFERENCES:
        described[_MAX_DIFFERENCES:] = [f"and {len(described) - _MAX_DIFFERENCES} more"]
    return described


def _describe(params: dict[str, Scalar], name: str) -> str:
    return repr(params[name]) if name in params else "absent"
