"""Scenarios of snapshots on several ranks."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._distributed.sharding import full_tensor, local_tensor
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.plain_state import map_tensors
from pte_tracking._store import checkpoint_files
from pte_tracking._store.checkpoint_files import FileDigest
from tests.ranks.components import (
    fill_weights,
    make_manager,
    make_net,
    make_sharded_net,
    make_training_manager,
    read_rows,
    read_weights,
    shard_layers,
    train_net,
    update_net,
)


def change_weights_during_write(folder: Path) -> Any:
    """Change the weights right after each save starts, and return the saved values."""
    net, optimizer = make_sharded_net(500)
    fill_weights(net, 1.0)
    with make_manager(
        folder / "run",
        extensions.snapshot(trigger=(1, "iteration")),
        models=net,
        optimizers=optimizer,
        iters_per_epoch=3,
    ) as manager:
        for value in (1.0, 2.0, 3.0):
            with manager.run_iteration():
                fill_weights(net, 100.0)  # while the previous snapshot is written
                fill_weights(net, value)
    dist.barrier()
    return [
        sorted(
            {
                float(value)
                for tensor in read_weights(folder / "run" / f"snapshot_iter_{step}")
                for value in tensor.unique()
            }
        )
        for step in (1, 2, 3)
    ]


def save_several_snapshots_at_once(folder: Path) -> Any:
    """Save three kinds of snapshots in each iteration, and return the names of the remaining ones."""
    net, optimizer = make_sharded_net()
    with make_manager(
        folder / "run",
        extensions.snapshot("first_{.iteration}", trigger=(1, "iteration")),
        extensions.snapshot("other_{.iteration}", trigger=(1, "iteration"), n_retains=2),
        extensions.snapshot_object(net, "weights_{.iteration}", trigger=(1, "iteration"), n_retains=1),
        models=net,
        optimizers=optimizer,
        iters_per_epoch=4,
    ) as manager:
        for _ in range(4):
            with manager.run_iteration():
                update_net(net, optimizer)
    return sorted(path.name for path in (folder / "run").glob("*_*"))


def save_with_full_disk(folder: Path) -> Any:
    """Limit the file size on rank 1 during the first snapshot and on rank 0 during the second."""
    import resource  # does not exist on Windows

    rank = dist.get_rank()
    net, optimizer = make_sharded_net(200)
    limits = {0: 2_000, 1: 20_000}
    snapshot = extensions.snapshot(trigger=(1, "iteration"), asynchronous=False)
    with make_manager(folder / "run", snapshot, models=net, optimizers=optimizer, iters_per_epoch=3) as manager:
        for iteration in range(3):
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            if iteration == 2 - rank:  # The snapshot of an iteration is saved when the next one begins.
                resource.setrlimit(resource.RLIMIT_FSIZE, (limits[rank], hard))
            with manager.run_iteration():
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                update_net(net, optimizer)
    return {
        "iterations": manager.iteration,
        "remaining": sorted(path.name for path in (folder / "run").glob("*snapshot*")),
        "registered": [checkpoint.path for checkpoint in manager.run.checkpoints()],
    }


def save_without_memory(folder: Path) -> Any:
    """Raise MemoryError on rank 1 when it copies the state for the first snapshot."""
    net, optimizer = make_sharded_net()
    snapshot = extensions.snapshot(trigger=(1, "iteration"))
    buffers = snapshot._writer._buffers  # type: ignore[attr-defined]
    copy = buffers.copy
    with make_manager(folder / "run", snapshot, models=net, optimizers=optimizer, iters_per_epoch=3) as manager:
        for iteration in range(3):
            with manager.run_iteration():
                update_net(net, optimizer)
                if dist.get_rank() == 1:
                    buffers.copy = _raise_memory_error if iteration == 0 else copy
    dist.barrier()
    registered = json.loads((folder / "run" / "checkpoints.json").read_text())
    return {"iterations": manager.iteration, "registered": [entry["path"] for entry in registered]}


def _raise_memory_error(state: Any) -> Any:
    raise MemoryError


def collect_unsupported_option_errors(folder: Path) -> Any:
    """Return the errors for snapshot options that sharded models do not support."""
    net, optimizer = make_sharded_net()
    snapshot = extensions.snapshot(snapshot_on_error=True)
    try:
        with (
            make_manager(folder / "run", snapshot, models=net, optimizers=optimizer, iters_per_epoch=1) as manager,
            manager.run_iteration(),
        ):
            pass
    except ValueError as error:
        return [str(error)]
    return []


def load_object_snapshot(folder: Path) -> Any:
    """Load the newest object snapshot into a sharded model, and return whether the weights are equal."""
    net, optimizer = make_sharded_net()
    snapshot = extensions.snapshot_object(net, "net_{.iteration}", trigger=(1, "iteration"))
    with make_manager(folder / "run", snapshot, models=net, optimizers=optimizer, iters_per_epoch=2) as manager:
        for _ in range(2):
            with manager.run_iteration():
                update_net(net, optimizer)
    kept = [parameter.full_tensor().tolist() for parameter in net.parameters()]
    other, optimizer = make_sharded_net()
    fill_weights(other, 7.0)
    loading = extensions.snapshot_object(other, "net_{.iteration}", trigger=None, autoload=True)
    manager = make_manager(folder / "run", loading, models=other, optimizers=optimizer, iters_per_epoch=3)
    manager.resume()
    with manager, manager.run_iteration():
        pass
    return kept == [parameter.full_tensor().tolist() for parameter in other.parameters()]


def train_sharded(folder: Path, wrap: Callable[[nn.Module], nn.Module] = shard_layers) -> Any:
    """Train for two epochs with a snapshot every two iterations, and return the run ID."""
    net, optimizer = make_net(wrap)
    snapshot = extensions.snapshot(trigger=(2, "iteration"), n_retains=int(os.environ.get("N_RETAINS", "-1")))
    manager = make_training_manager(folder / "run", net, optimizer, snapshot)
    train_net(manager, net, optimizer)
    return manager.run.id


def train_ddp(folder: Path) -> Any:
    return train_sharded(folder, nn.parallel.DistributedDataParallel)


def resume_sharded(folder: Path, wrap: Callable[[nn.Module], nn.Module] = shard_layers) -> Any:
    """Resume from the newest snapshot for one more epoch. Rank 0 saves the restored state in ``restored``."""
    torch.manual_seed(9)
    net, optimizer = make_net(wrap)
    manager = make_training_manager(folder / "run", net, optimizer, extensions.snapshot(trigger=(1, "epoch")), epochs=3)
    resumed = manager.resume()
    assert resumed is not None
    state = map_tensors(manager.state_dict(), lambda tensor, _: full_tensor(tensor))
    if dist.get_rank() == 0:
        torch.save({part: state[part] for part in ("models", "optimizers")}, folder / "restored")
    train_net(manager, net, optimizer)
    return {"step": resumed.step, "id": manager.run.id, "iterations": manager.iteration, "epoch": manager.epoch}


def resume_ddp(folder: Path) -> Any:
    return resume_sharded(folder, nn.parallel.DistributedDataParallel)


def verify_on_all_ranks(folder: Path) -> Any:
    """Resume from the newest intact snapshot, and return the files that this rank verified and its log messages."""
    checked: dict[str, list[str]] = {}
    log_messages: list[str] = []

    def record_digest(path: Path) -> FileDigest:
        checked.setdefault(path.parent.name, []).append(path.name)
        return original_digest(path)

    handler = logging.Handler()
    handler.emit = lambda record: log_messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pte_tracking").addHandler(handler)
    original_digest, checkpoint_files.digest_file = checkpoint_files.digest_file, record_digest
    net, optimizer = make_net(shard_layers)
    manager = make_training_manager(folder / "run", net, optimizer, extensions.snapshot(trigger=(1, "epoch")), epochs=3)
    resumed = manager.resume()
    assert resumed is not None
    error = ""
    try:
        load(folder / "run" / "snapshot_iter_8", world=manager.world)
    except SnapshotError as caught:
        error = str(caught)
    return {"step": resumed.step, "checked": checked, "log_messages": log_messages, "error": error}


def save_on_condition(folder: Path) -> Any:
    """Save with a condition that differs between ranks, and return the names of the snapshots."""
    manager = make_manager(
        folder / "run",
        extensions.snapshot(trigger=(1, "iteration"), condition=lambda: manager.iteration % 2 == dist.get_rank()),
        extensions.LogReport(trigger=(1, "iteration")),
        iters_per_epoch=3,
    )
    with manager:
        for _ in range(3):
            with manager.run_iteration():
                pte.report({"x": 1.0})
    dist.barrier()
    return [path.name for path in (folder / "run").glob("snapshot_*")]


def save_on_signal(folder: Path) -> Any:
    """Send a signal to rank 1, and return the exit status and the iteration of the snapshot."""
    snapshot = extensions.snapshot(trigger=(8, "iteration"), on_signal=signal.SIGUSR1)
    manager = make_manager(folder / "run", snapshot, models=nn.Linear(1000, 1000), iters_per_epoch=8)
    status = None
    try:
        with manager:
            for iteration in range(8):
                with manager.run_iteration():
                    if iteration == 2 and dist.get_rank() == 1:
                        os.kill(os.getpid(), signal.SIGUSR1)
    except SystemExit as error:
        status = error.code
    name = f"snapshot_iter_{manager.iteration}"
    return {"status": status, "iteration": manager.iteration, "snapshot exists": (folder / "run" / name).exists()}


def compare_training_resumed_from_fixed_name(folder: Path) -> Any:
    """Compare as :func:`compare_resumed_training`, with snapshots that each replace the one before."""
    return compare_resumed_training(folder, "newest")


def compare_resumed_training(folder: Path, filename: str = "snapshot_iter_{.iteration}") -> Any:
    """Compare an interrupted and resumed run with an uninterrupted run, and return the differences on this rank."""

    def session(out: Path, fail_in: int | None = None, resume: bool = False) -> Any:
        torch.manual_seed(dist.get_rank())
        net, optimizer = make_net(shard_layers)
        manager = make_training_manager(out, net, optimizer, extensions.snapshot(filename, trigger=(2, "iteration")))
        if resume:
            manager.resume()
        with contextlib.suppress(InterruptedError):
            train_net(manager, net, optimizer, fail_in)
        weights = {key: local_tensor(tensor) for key, tensor in net.state_dict().items()}
        return weights, read_rows(out) if dist.get_rank() == 0 else None

    uninterrupted, log = session(folder / "uninterrupted")
    session(folder / "interrupted", fail_in=7)
    resumed, resumed_log = session(folder / "interrupted", resume=True)
    differing = [key for key, tensor in uninterrupted.items() if not torch.equal(tensor, resumed[key])]
    return {"differing": differing, "same log": log == resumed_log, "tensors": len(resumed), "rows": len(log or ())}
