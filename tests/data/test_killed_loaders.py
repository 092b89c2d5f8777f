"""A training over objects with nested states that is killed within an epoch continues exactly, in every front end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import BatchSampler, DataLoader

from tests.data.front_ends import FRONT_ENDS, train
from tests.data.passes import BATCHES
from tests.data.state_objects import DATA, Collator, PositionOrder

_STOP = BATCHES + 3


def make_loader() -> Any:
    sampler: Any = BatchSampler(PositionOrder(), 4, drop_last=False)
    return DataLoader(DATA, batch_sampler=sampler, collate_fn=Collator())


def train_until_killed(front_end: str, folder: Path) -> None:
    """Train, and kill the process in the iteration after a snapshot, once this is published."""
    batches: list[Any] = []

    def count(batch: Any) -> None:
        batches.append(batch)
        if len(batches) <= _STOP:
            return
        for _ in range(1000):
            if (folder / f"snapshot_iter_{_STOP}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.01)

    train(FRONT_ENDS[front_end], folder, make_loader, trigger=(1, "iteration"), modify=count)


@pytest.mark.slow
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_training_killed_within_an_epoch_continues_exactly(front_end: str, tmp_path: Path) -> None:
    run = FRONT_ENDS[front_end]
    whole = train(run, tmp_path / "whole", make_loader)
    command = [sys.executable, "-m", "tests.data.test_killed_loaders", front_end, str(tmp_path / "run")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    rest = train(run, tmp_path / "run", make_loader, trigger=(1, "iteration"), resume=True)
    assert rest == whole[_STOP:]


if __name__ == "__main__":
    train_until_killed(sys.argv[1], Path(sys.argv[2]))
