"""Scenarios of SystemMetrics and Monitor. The names of nodes are set, because the ranks share a machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import torch
import torch.distributed as dist

from pte_tracking import extensions
from pte_tracking._store.samples import read_samples
from tests.ranks.components import make_manager, make_sharded_net

_SECONDS = 60


def sample_two_nodes(folder: Path) -> int:
    """Train until each node has two samples. Return the number of samplers that this rank leaves running."""
    os.environ["PTE_TRACKING_NODE_NAME"] = ["first", "second"][dist.get_rank()]
    sampling = extensions.SystemMetrics(interval=0.05)
    manager = make_manager(folder / "run", sampling, iters_per_epoch=1, sinks=["tensorboard"])
    with manager, manager.run_iteration():
        deadline = time.monotonic() + _SECONDS
        while not all(count > 1 for count in _counts(folder / "run")) and time.monotonic() < deadline:
            time.sleep(0.05)
    return sum("_delivery.sampler" in " ".join(child.cmdline()) for child in psutil.Process().children())


def monitor_sharded(folder: Path) -> tuple[float, float]:
    """Return the norm that Monitor reports for a sharded model, and that of the gathered gradients."""
    net, optimizer = make_sharded_net()
    manager = make_manager(folder / "run", extensions.Monitor(), models=net, optimizers=optimizer, sinks=[])
    for batch in manager.batches([torch.ones(4, 8) * (1 + dist.get_rank())]):
        with manager.run_iteration():
            net(batch).sum().backward()
            optimizer.step()
    gradients = [parameter.grad.full_tensor().flatten() for parameter in net.parameters()]
    return float(manager.observation["monitor/gradient_norm"]), float(torch.cat(gradients).norm())


def _counts(run: Path) -> list[int]:
    counts = {"system-first.jsonl": 0, "system-second.jsonl": 0}
    for samples in read_samples(run, {}):
        counts[samples.file] += len(samples.events)
    return [*counts.values()]
