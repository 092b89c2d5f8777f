"""Run of an adapter, which is held until it is known whether it continues an earlier run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pte_tracking._runs.outcome import outcome_of
from pte_tracking._runs.run import Run
from pte_tracking.sinks import Sink


class AdapterRun:
    """Run whose start is decided by the first call that shows the step of the training.

    Args:
        directory: See :class:`~pte_tracking.Run`, as for the other arguments.
        sinks: Names of sinks, or sinks.
        params: Hyperparameters.
        tags: Labels.
        name: Display name.
        group: Group of the run.
        resume: Whether to continue the run in the directory, if there is one.
        close_timeout: Maximum number of seconds that the end of the run waits for delivery.
        rank: Rank of this process. None for that of the environment.

    Attributes:
        run: The run. What is logged to it before :meth:`start` or :meth:`resume_at` is held.
        is_started: Whether the run was started or continued.
        is_continued: Whether the directory contained the run before it was started.
        last_step: Last step that was logged. None if there is none.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        sinks: Iterable[str | Sink],
        params: object,
        tags: Mapping[str, Any] | None,
        name: str | None,
        group: str | None = None,
        resume: bool,
        close_timeout: float,
        rank: int | None = None,
    ) -> None:
        self.run = Run(
            directory,
            sinks=sinks,
            params=params,
            tags=tags,
            name=name,
            group=group,
            resume=resume,
            close_timeout=close_timeout,
            rank=rank,
        )
        self.run.hold()
        self.is_started = self.is_continued = False
        self.last_step: int | None = None
        self._resume = resume

    def start(self, first_step: int | None = None, *, resume: bool | None = None) -> None:
        """Start the run, or continue the run in the directory.

        Args:
            first_step: Step of the first value. A run that continues is rewound to the step before. None does not
                rewind.
            resume: Whether to continue. Defaults to the argument of the constructor.
        """
        resume = self._resume if resume is None else resume
        if resume and first_step is not None:
            self.resume_at(first_step - 1)
            return
        self.is_continued = resume and self.run.start_position() is not None
        self.run.open(resume=resume)
        self.is_started = True

    def resume_at(self, step: int) -> None:
        """Continue the run in the directory after a step; see :meth:`pte_tracking.Run.resume_at`."""
        self.run.resume_at(step)
        self.is_started, self.last_step = True, step

    def join_run_in_directory(self) -> None:
        """Let what is held belong to the run that the directory contains at the end, which another process starts."""
        self._resume = True
        self.run.hold(resume=True)

    def step_of(self, step: int | None) -> int:
        """Return the step of a call without one: the step after the last one."""
        if step is None:
            if self.last_step is None:  # Before the start, the rows are those of an earlier run.
                self.last_step = max((row.step for row in self.run.rows()), default=-1) if self.is_started else -1
            step = self.last_step + 1
        self.last_step = step
        return step

    def close(self) -> None:
        """End the run with the status that the exception in progress determines."""
        if not self.is_started:  # A failed attempt to resume must not archive the run.
            self.start()
        self.run.close(*outcome_of(sys.exc_info()[1]))
