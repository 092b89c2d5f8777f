"""Reports of values on the device, which must not wait for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import pte_tracking as pte
from pte_tracking import extensions

STEPS, BARE_STEPS = 1000, 10
#: Calls that wait for the device or copy a value to the host, by device. Values on the CPU are read at once.
SYNCHRONIZING = {
    "cuda": frozenset(
        (
            *("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"),
            *("aten::_local_scalar_dense", "aten::item"),
        )
    ),
    "cpu": frozenset[str](),
}


def check_synchronization(device: str, folder: Path) -> str:
    """Profile steps with reports. They may synchronize no more often than a few steps without reports."""
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(32, 64, device=device)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def run_bare() -> None:
        for _ in range(BARE_STEPS):
            step()

    manager = pte.ExtensionsManager(
        model,
        1,
        [extensions.LogReport(trigger=(10 * STEPS, "iteration"))],
        optimizers=optimizer,
        iters_per_epoch=100 * STEPS,
        out_dir=folder / "run",
        sinks=["json", "tensorboard"],
    )

    def run_tracked() -> None:
        for _ in range(STEPS):
            with manager.run_iteration():
                loss = step()
                pte.report({"loss": loss, "scaled": 2 * loss, "accuracy": (loss, 32)})

    run_bare()
    run_tracked()  # the first iterations allocate memory
    bare, tracked = _count(run_bare, device), _count(run_tracked, device)
    manager.close()
    added = tracked - bare
    assert not added, f"report() synchronized: {', '.join(f'{name} x{count}' for name, count in added.items())}"
    return f"{sum(tracked.values())} synchronizing calls in {STEPS:,} steps"


def _count(run: Callable[[], None], device: str) -> Counter[str]:
    """Return the number of synchronizing calls by name."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        run()
    counted = SYNCHRONIZING[device]
    return Counter({event.key: event.count for event in profiler.key_averages() if event.key in counted})
