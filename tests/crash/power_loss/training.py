"""Small trainings whose file operations are recorded, and which are resumed after a loss of power."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._delivery.sync import sync

ITERATIONS = 12


class Session(NamedTuple):
    """One start of a training.

    Attributes:
        stop: Iteration after which the process ends without closing the run.
        is_resumed: Whether the training resumes. Otherwise, an earlier run in the directory is archived.
    """

    stop: int
    is_resumed: bool = True


class Training(NamedTuple):
    """Training that is recorded.

    Attributes:
        sessions: Its starts.
        filename: Name of its snapshots.
        n_retains: Number of snapshots that it keeps.
        sinks: Its sinks.
    """

    sessions: tuple[Session, ...]
    filename: str = "snapshots/{.iteration}"
    n_retains: int = 2
    sinks: tuple[str, ...] = ("json",)

    def run(self, directory: Path, stop: int = ITERATIONS, *, is_resumed: bool = True) -> tuple[int, list[float]]:
        """Train, and deliver what is logged in the foreground.

        Returns:
            The iteration at which the training started, and the final weights.
        """
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        manager = pte.ExtensionsManager(
            {"main": model},
            ITERATIONS,
            [
                extensions.LogReport(trigger=(1, "iteration")),
                extensions.snapshot(filename=self.filename, trigger=(3, "iteration"), n_retains=self.n_retains),
            ],
            optimizers={"main": optimizer},
            iters_per_epoch=1,
            out_dir=directory,
            sinks=self.sinks,
            params={"lr": 0.1},
        )
        if is_resumed:
            manager.resume()
        start = manager.iteration
        while not manager.stop_trigger and manager.iteration < stop:
            with manager.run_iteration(step_optimizers=["main"]):
                loss = model(torch.randn(4, 2)).square().mean()
                loss.backward()
                pte.report({"loss": loss})
                if manager.iteration == 4:
                    manager.run.log_text("note", "a text")
        if stop == ITERATIONS:
            manager.close()
        # A run that was complete is not opened for writing, and its log is repaired here.
        sync(directory)
        return start, [value for parameter in model.parameters() for value in parameter.flatten().tolist()]


TRAININGS = {
    "resumed": Training((Session(5), Session(8), Session(ITERATIONS))),
    "fixed_name": Training((Session(5), Session(8), Session(ITERATIONS)), filename="snapshot"),
    "archived": Training((Session(8, is_resumed=False), Session(8, is_resumed=False)), n_retains=0),
    "tensorboard": Training((Session(5), Session(8)), sinks=("json", "tensorboard")),
}


def log_rows(directory: Path, stop: int) -> None:
    """Log the next rows of a run without snapshots, and flush the second one."""
    run = pte.Run(directory, sinks=["json"], resume=True)
    first = max((row.step for row in run.rows()), default=0) + 1
    for step in range(first, stop + 1):
        run.log_metrics({"loss": 1 / step}, step)
        if step == first + 1:
            run.sync()
    if stop == ITERATIONS:
        run.close()


def record_sessions(name: str, directory: Path) -> None:
    """Run the sessions of a training, each in a process of its own that does not close the run."""
    if name == "rows":
        for stop in (4, 8):
            _run(lambda stop=stop: log_rows(directory, stop))
        return
    training = TRAININGS[name]
    for session in training.sessions:
        _run(lambda session=session: training.run(directory, session.stop, is_resumed=session.is_resumed))


def _run(session: Callable[[], object]) -> None:
    child = os.fork()
    if not child:
        code = 1
        try:
            session()
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("A session failed.")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record_sessions(sys.argv[1], Path(sys.argv[2]))
