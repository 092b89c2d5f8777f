"""Cost of rows and of sharded snapshots with two ranks.

``python benchmarks/ranks.py [--rounds N]``

Two processes are connected by gloo. Four cases alternate: iterations with DistributedDataParallel in a bare loop; the
same in a manager that logs a row every ten iterations; a sharded snapshot of a 200 MB model; and ``async_save`` of
torch.distributed.checkpoint for the same model. Printed are milliseconds on rank 0:

- blocked: until the training continues
- written after: until the snapshot is written
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
from _measure import Figure, format_spread, interleave, ratios
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
    """Small training with DistributedDataParallel."""

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


def train_bare(training: Training) -> None:
    for _ in range(ITERATIONS):
        training.step()


def train_managed(training: Training, manager: pte.ExtensionsManager) -> None:
    for _ in range(ITERATIONS):
        with manager.run_iteration():
            loss = training.step()
            pte.report({"loss": loss, **{f"key{number}": loss for number in range(4)}})


def measure(function: Callable[[], object], finish: Callable[[], object] = lambda: None) -> dict[str, float]:
    dist.barrier()
    start = time.perf_counter()
    function()
    blocked = time.perf_counter() - start
    finish()
    written = time.perf_counter() - start
    dist.barrier()
    return {"blocked": blocked * 1e3, "written after": written * 1e3}


def run_rank(rank: int, folder: Path, rounds: int) -> None:
    torch.set_num_threads(1)
    file_store = dist.FileStore(str(folder / "store"), RANKS)
    dist.init_process_group("gloo", store=file_store, rank=rank, world_size=RANKS)
    training = Training()
    logging_manager = pte.ExtensionsManager(
        training.model,
        1,
        [extensions.LogReport(trigger=(10, "iteration"))],
        out_dir=folder / "rows",
        iters_per_epoch=1_000_000,
    )
    model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])
    fully_shard(model)
    snapshot = extensions.snapshot("snapshot_{.iteration}", trigger=None, n_retains=1)
    assert isinstance(snapshot, TrainingSnapshot)
    snapshot_manager = pte.ExtensionsManager(
        model, 1, [snapshot], out_dir=folder / "shards", iters_per_epoch=1_000_000, sinks=[]
    )
    with snapshot_manager.run_iteration():
        pass

    def save_snapshot() -> None:
        snapshot_manager.updater.iteration += 1  # each snapshot needs a new file name
        snapshot(snapshot_manager)

    futures: list[Future[Any]] = []

    def save_with_dcp() -> None:
        future = dcp.async_save({"models": model.state_dict()}, checkpoint_id=folder / "dcp")
        assert isinstance(future, Future)
        futures[:] = [future]

    cases: dict[str, Callable[[], dict[str, float]]] = {
        "bare loop": partial(measure, lambda: train_bare(training)),
        "with rows": partial(measure, lambda: train_managed(training, logging_manager)),
        "snapshot()": partial(measure, save_snapshot, snapshot._writer.wait),
        "dcp.async_save": partial(measure, save_with_dcp, lambda: futures[0].result()),
    }
    for case in cases.values():
        case()
    results = interleave(rounds, cases)
    if rank == 0:
        (folder / "results.json").write_text(json.dumps(results))
    for manager in (logging_manager, snapshot_manager):
        manager.close()
    dist.destroy_process_group()
    os._exit(0)  # torch sometimes aborts at exit if a wrapped model still exists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        torch.multiprocessing.spawn(run_rank, (Path(name), args.rounds), RANKS)
        results: dict[str, list[dict[str, float]]] = json.loads((Path(name) / "results.json").read_text())
    for quantity in ("blocked", "written after"):
        print(f"\n{quantity}")
        for name, timings in results.items():
            print(f"  {name:20} {format_spread([timing[quantity] for timing in timings])}")
    blocked = {name: [timing["blocked"] for timing in timings] for name, timings in results.items()}
    Figure(
        "iterations of two ranks with a row every ten iterations",
        "a bare loop",
        ratios(blocked["with rows"], blocked["bare loop"]),
        "<= 1.1",
    ).publish()
    Figure(
        "training blocked by a sharded snapshot of 200 MB",
        "dcp.async_save",
        ratios(blocked["snapshot()"], blocked["dcp.async_save"]),
        "<= 1.2",
    ).publish()


if __name__ == "__main__":
    main()
