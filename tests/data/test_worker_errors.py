"""Errors in a loader or in its workers: the snapshot that they cause resumes exactly, in every front end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.data.front_ends import FRONT_ENDS, train

SAMPLES, BATCH_SIZE = 12, 3


class DamagedSampleError(Exception):
    pass


class DamagedData(Dataset[Tensor]):
    """Dataset with random numbers of workers, in which a file makes one sample fail after it was read some times."""

    def __init__(self, flag: Path, is_killed: bool) -> None:
        self.flag, self.is_killed = flag, is_killed

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tensor:
        if index == 7 and self.flag.exists():
            reads = int(self.flag.read_text())
            self.flag.write_text(str(reads - 1))
            if reads == 0 and self.is_killed:
                # The death of a worker interrupts the training process wherever it is. By now it waits for this batch.
                time.sleep(1)
                os.kill(os.getpid(), signal.SIGKILL)
            if reads == 0:
                raise DamagedSampleError("sample 7 is damaged")
        return index + (torch.zeros(()) if get_worker_info() is None else torch.rand(()))


@pytest.mark.parametrize("reads", [0, 1])
@pytest.mark.parametrize(
    ("workers", "is_killed"), [(0, False), (2, False), (2, True)], ids=["none", "raises", "killed"]
)
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_error_in_a_loader_is_raised_and_its_snapshot_resumes_exactly(
    front_end: str, workers: int, is_killed: bool, reads: int, tmp_path: Path
) -> None:
    run, flag, seen = FRONT_ENDS[front_end], tmp_path / "reads", list[Any]()

    def make_loader() -> Any:
        return DataLoader(DamagedData(flag, is_killed), BATCH_SIZE, shuffle=True, num_workers=workers)

    never: Any = {"trigger": (100, "iteration")}
    whole = train(run, tmp_path / "whole", make_loader, **never)
    flag.write_text(str(reads))
    died = (RuntimeError, "DataLoader worker .* (exited|killed)")
    expected: Any = died if is_killed else (DamagedSampleError, "sample 7")
    with pytest.raises(expected[0], match=expected[1]):
        train(run, tmp_path / "run", make_loader, seen=seen, **never)
    flag.unlink()
    (snapshot,) = (tmp_path / "run").glob("*_on_error")
    assert snapshot.name == f"snapshot_iter_{len(seen)}_on_error"
    rest = train(run, tmp_path / "run", make_loader, resume=snapshot, **never)
    assert (seen, rest) == (whole[: len(seen)], whole[len(seen) :])


class FailingData(Dataset[Tensor]):
    """Dataset of which one read fails."""

    def __init__(self, failing: int | None) -> None:
        self.failing, self.reads = failing, list[int]()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Tensor:
        self.reads.append(index)
        if len(self.reads) - 1 == self.failing:
            raise DamagedSampleError(f"sample {index} is damaged")
        return torch.tensor(index)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # raised by torchdata
@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize("failing", [0, 4, SAMPLES])
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_error_in_any_batch_of_a_loader_keeps_the_order(
    front_end: str, failing: int, kind: Any, tmp_path: Path
) -> None:
    run, seen, never = FRONT_ENDS[front_end], list[Any](), {"trigger": (100, "iteration")}

    def make_loader(failing: int | None) -> Callable[[], Any]:
        return lambda: kind(FailingData(failing), BATCH_SIZE, shuffle=True)

    whole = train(run, tmp_path / "whole", make_loader(None), **never)
    with pytest.raises(DamagedSampleError):
        train(run, tmp_path / "run", make_loader(failing), seen=seen, **never)
    (snapshot,) = (tmp_path / "run").glob("*_on_error")
    rest = train(run, tmp_path / "run", make_loader(None), resume=snapshot, **never)
    assert (seen, rest) == (whole[: len(seen)], whole[len(seen) :])
