"""Trainings that are stopped in the middle of an epoch and resumed, compared with uninterrupted ones."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

import pte_tracking as pte
from pte_tracking import extensions

EPOCHS, BATCHES = 3, 8
SNAPSHOT_INTERVAL, STOP = 5, 13  # The resume continues at iteration 10, in the second epoch.

Wrap = Callable[[nn.Module], nn.Module]


class UnmeasuredError(Exception):
    """The machine lacks what the check needs. The message is the reason."""


class Net(nn.Module):
    """Network with dropout and a batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10))
        )

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


class Training:
    """Short training in half precision.

    Args:
        device: ``"cuda"`` or ``"cpu"``.
        out: Run directory.
        wrap: Wraps the model.
        pins_batches: Whether the loader pins its batches, which are then copied asynchronously.
        noise: Generator of the noise that is added to the inputs. None adds no noise.
    """

    def __init__(
        self,
        device: str,
        out: Path,
        wrap: Wrap = lambda model: model,
        pins_batches: bool = False,
        noise: torch.Generator | None = None,
    ) -> None:
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(True)
        self._device, self._noise = device, noise
        self._model = wrap(Net().to(device))
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=0.01)
        self._scaler = torch.amp.GradScaler(device, init_scale=2.0**12)
        x = torch.randn(16 * BATCHES, 64)
        data = TensorDataset(x, x.argmax(1) % 10)
        self._loader = DataLoader(data, 16, shuffle=True, pin_memory=pins_batches and device == "cuda")
        self._manager = pte.ExtensionsManager(
            self._model,
            EPOCHS,
            [
                extensions.LogReport(trigger=(2, "iteration")),
                extensions.snapshot(trigger=(SNAPSHOT_INTERVAL, "iteration")),
            ],
            optimizers=self._optimizer,
            out_dir=out,
            sinks=["json", "tensorboard"],
            state_objects={"scaler": self._scaler, **({} if noise is None else {"noise": noise})},
        )

    def run(self, stop: int | None = None) -> tuple[dict[str, Tensor], list[dict[str, Any]], int]:
        """Resume and train until the end, or to an iteration.

        Returns:
            The state of the model, the rows of the log without times, and the iteration at which the training resumed.
        """
        manager = self._manager
        manager.resume()
        start = manager.iteration
        for x, y in manager.batches(self._loader):
            if manager.iteration == stop:
                break
            with manager.run_iteration():
                self._step(x.to(self._device, non_blocking=True), y.to(self._device, non_blocking=True))
        manager.close()
        rows = json.loads((manager.run.directory / "log").read_text())
        rows = [{key: value for key, value in row.items() if key != "elapsed_time"} for row in rows]
        return {name: tensor.cpu() for name, tensor in manager.models["main"].state_dict().items()}, rows, start

    def _step(self, x: Tensor, y: Tensor) -> None:
        if self._noise is not None:
            x = x + torch.randn(x.shape, generator=self._noise, device=self._device)
        self._optimizer.zero_grad()
        dtype = torch.float16 if self._device == "cuda" else torch.bfloat16
        with torch.autocast(self._device, dtype):
            loss = F.cross_entropy(self._model(x), y)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        pte.report({"loss": loss, "scale": self._scaler.get_scale()})


def compare(make: Callable[[Path], Training], folder: Path) -> str:
    """Compare a resumed training with an uninterrupted one.

    Args:
        make: Function of a run directory that returns the training.
        folder: Empty directory.
    """
    weights, rows, _ = make(folder / "whole").run()
    make(folder / "run").run(STOP)
    resumed_weights, resumed_rows, start = make(folder / "run").run()
    expected_start = STOP - STOP % SNAPSHOT_INTERVAL
    assert start == expected_start, f"resumed at iteration {start}, expected {expected_start}"
    differing = [name for name, tensor in weights.items() if not torch.equal(tensor, resumed_weights[name])]
    assert not differing, f"these weights differ: {', '.join(differing)}"
    assert rows == resumed_rows, "the rows of the log differ"
    return f"{len(weights)} tensors and {len(rows)} rows are equal after a resume at iteration {start}"


def check_amp(device: str, folder: Path) -> str:
    """Resume with AMP, GradScaler, and dropout."""
    return compare(lambda out: Training(device, out), folder)


def check_generators(device: str, folder: Path) -> str:
    """Resume with a generator on the device that is a state object."""
    return compare(lambda out: Training(device, out, noise=torch.Generator(device).manual_seed(1)), folder)


def check_compiled(device: str, folder: Path) -> str:
    """Resume a compiled model."""
    return compare(lambda out: Training(device, out, wrap=lambda model: torch.compile(model)), folder)


def check_pinned(device: str, folder: Path) -> str:
    """Resume with batches that are pinned and copied asynchronously."""
    return compare(lambda out: Training(device, out, pins_batches=True), folder)


def check_ranks(device: str, folder: Path) -> str:
    """Resume with a process group of one rank: NCCL, or Gloo on the CPU. Both listen on the loopback interface."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("127.0.0.1", 9))  # sends nothing
        except OSError as error:
            raise UnmeasuredError("no loopback interface") from error
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder / 'store'}", rank=0, world_size=1)
    try:
        result = compare(lambda out: Training(device, out, wrap=DistributedDataParallel), folder)
    finally:
        dist.destroy_process_group()
    return f"{backend}: {result}"
