"""What two ranks pay: for iterations with rows, and for a snapshot in shards.

``python benchmarks/ranks.py`` starts two processes that are connected by gloo. In turns, they train with
DistributedDataParallel in a bare loop, and in a manager's that logs a row every ten iterations; then a model of 200 MB
in shards is saved by our snapshot, and by torch.distributed.checkpoint's async_save alone. Times are those of rank 0,
in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from _measure import Figure, in_turns, ratios, spread
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.extensions.training_snapshot import TrainingSnapshot

RANKS = 2
ITERATIONS = 200
LAYERS, WIDTH = 50, 1000


class Training:
    """Steps of DistributedDataParallel."""

    def __init__(self) -> None:
        self.model = DistributedDataParallel(nn.Sequential(*[nn.Linear(256, 256) for _ in range(4)]))
        self._optimizer = torch.optim.SGD(self.model.parameters(), 0.01)
        self._input = torch.randn(64, 256)

    def step(self) -> torch.Tensor:
        self._optimizer.zero_grad()
        loss: torch.Tensor = self.model(self._input).square().mean()
        loss.backward()
        self._optimizer.step()
        return loss


def bare(training: Training) -> None:
    for _ in range(ITERATIONS):
        training.step()


def managed(training: Training, manager: pte.ExtensionsManager) -> None:
    for _ in range(ITERATIONS):
        with manager.run_iteration():
            loss = training.step()
            pte.report({"loss": loss, **{f"key{number}": loss for number in range(4)}})


def timed(work: Callable[[], object], finish: Callable[[], object] = lambda: None) -> dict[str, float]:
    dist.barrier()
    start = time.perf_counter()
    work()
    blocked = time.perf_counter() - start
    finish()
    written = time.perf_counter() - start
    dist.barrier()
    return {"blocked": blocked * 1e3, "written after": written * 1e3}


def be(rank: int, folder: Path, rounds: int) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=RANKS)
    training = Training()
    rows = pte.ExtensionsManager(
        training.model,
        1,
        [extensions.LogReport(trigger=(10, "iteration"))],
        out_dir=folder / "rows",
        iters_per_epoch=1_000_000,
    )
    model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])
    fully_shard(model)
    saver = extensions.snapshot("snapshot_{.iteration}", trigger=None, n_retains=1)
    assert isinstance(saver, TrainingSnapshot)
    shards = pte.ExtensionsManager(model, 1, [saver], out_dir=folder / "shards", iters_per_epoch=1_000_000, sinks=[])
    with shards.run_iteration():
        pass

    def ours() -> None:
        shards.updater.iteration += 1  # each has a name of its own
        saver(shards)

    last: list[Future[Any]] = []

    def torchs() -> None:
        future = dcp.async_save({"models": model.state_dict()}, checkpoint_id=folder / "dcp")
        assert isinstance(future, Future)
        last[:] = [future]

    cases: dict[str, Callable[[], dict[str, float]]] = {
        "bare loop": partial(timed, lambda: bare(training)),
        "with rows": partial(timed, lambda: managed(training, rows)),
        "snapshot()": partial(timed, ours, saver._writer.wait),
        "dcp.async_save": partial(timed, torchs, lambda: last[0].result()),
    }
    for case in cases.values():
        case()
    found = in_turns(rounds, cases)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    for manager in (rows, shards):
        manager.close()
    dist.destroy_process_group()
    os._exit(0)  # torch aborts now and then at the end of an interpreter that still has a wrapped model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        torch.multiprocessing.spawn(be, (Path(name), args.rounds), RANKS)
        found: dict[str, list[dict[str, float]]] = json.loads((Path(name) / "found.json").read_text())
    for quantity in ("blocked", "written after"):
        print(f"\n{quantity}")
        for name, results in found.items():
            print(f"  {name:20} {spread([one[quantity] for one in results])}")
    blocked = {name: [one["blocked"] for one in results] for name, results in found.items()}
    Figure(
        "iterations of two ranks with a row every ten",
        "a bare loop",
        ratios(blocked["with rows"], blocked["bare loop"]),
        "<= 1.1",
    ).tell()
    Figure(
        "training blocked by 200 MB in shards",
        "dcp.async_save",
        ratios(blocked["snapshot()"], blocked["dcp.async_save"]),
        "<= 1.2",
    ).tell()


if __name__ == "__main__":
    main()
