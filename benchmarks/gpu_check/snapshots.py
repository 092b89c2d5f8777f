"""Snapshots of a large state: their content, the time that they block the training, and their memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pte_tracking as pte
from pte_tracking import extensions

TENSORS = 100
STALL_BYTES = {"cuda": 800e6, "cpu": 100e6}
#: Limits of the time that a snapshot blocks the training, as a ratio to the copy and to torch.save. On the CPU, times
#: are printed only.
MAX_RATIOS = {"cuda": (2.0, 0.5), "cpu": (float("inf"), float("inf"))}
MAX_GROWTH_BYTES = 100e6


class State(nn.Module):
    """Weights of a given size."""

    def __init__(self, n_bytes: float, device: str) -> None:
        super().__init__()
        count = int(n_bytes) // (4 * TENSORS)
        self.weights = nn.ParameterList(torch.randn(count, device=device) for _ in range(TENSORS))


class Saving:
    """Training whose snapshots are saved on request.

    Args:
        state: The weights.
        out: Run directory.
    """

    def __init__(self, state: State, out: Path) -> None:
        self._snapshot: Any = extensions.snapshot("state", n_retains=1)
        self._manager = pte.ExtensionsManager(state, 1, out_dir=out, iters_per_epoch=1_000_000, sinks=[])
        with self._manager.run_iteration():
            pass
        self.path = out / "state"

    def save(self) -> None:
        """Save a snapshot, in another thread after the copy."""
        self._snapshot(self._manager)

    def wait(self) -> None:
        """Wait until the snapshot is written."""
        self._snapshot._writer.wait()

    def buffers(self) -> list[Tensor]:
        """Return the memory of the copy."""
        return list(self._snapshot._writer._buffers._buffers.values())


def synchronize(device: str) -> None:
    """Wait until the device has completed its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def check_copies(device: str, folder: Path) -> str:
    """Change the weights while they are copied and written."""
    state = State(200e6, device)
    expected = [weight.detach().cpu().clone() for weight in state.weights]
    saving = Saving(state, folder / "run")
    saving.save()
    with torch.no_grad():
        for _ in range(20):
            for weight in state.weights:
                weight.zero_()
    saving.wait()
    saved = torch.load(saving.path)["models"]["main"]
    differing = sum(not torch.equal(saved[f"weights.{index}"], expected[index]) for index in range(TENSORS))
    assert differing == 0, f"{differing} of {TENSORS} tensors are not those of the time of the snapshot"
    pinned = [buffer.is_pinned() for buffer in saving.buffers()]
    assert all(pinned) or device == "cpu", "the copy is not in page-locked memory"
    return f"{TENSORS} tensors are those of the time of the snapshot{', in page-locked memory' if all(pinned) else ''}"


def check_stall(device: str, folder: Path) -> str:
    """Compare the time that a snapshot blocks the training with torch.save and with the copy."""
    size, (max_copy_ratio, max_save_ratio) = STALL_BYTES[device], MAX_RATIOS[device]
    state = State(size, device)
    saving = Saving(state, folder / "run")
    memory = [torch.empty_like(weight, device="cpu", pin_memory=device == "cuda") for weight in state.weights]

    def copy() -> None:
        for target, weight in zip(memory, state.weights, strict=True):
            target.copy_(weight.detach(), non_blocking=True)

    def save() -> None:
        torch.save({"models": state.state_dict()}, folder / "torch")

    times: dict[str, list[float]] = {"snapshot": [], "call": [], "copy": [], "torch.save": []}
    for is_measured in (False, True, True, True):
        measured = {
            "copy": _measure(copy, device),
            "torch.save": _measure(save, device),
            "snapshot": _measure(saving.save, device),
        }
        saving.wait()
        measured["call"] = _measure(saving.save, "cpu")  # the time of the host, without that of the device
        saving.wait()
        for name in times if is_measured else ():
            times[name].append(measured[name])
    snapshot, call, copied, saved = (statistics.median(values) for values in times.values())
    text = (
        f"{snapshot * 1e3:.0f} ms (host: {call * 1e3:.0f} ms) for {size / 1e6:.0f} MB, {snapshot / copied:.2f} of the "
        f"copy at {size / copied / 1e9:.1f} GB/s, {snapshot / saved:.2f} of torch.save"
    )
    assert snapshot <= max_copy_ratio * copied, f"{text}; expected at most {max_copy_ratio} of the copy"
    assert snapshot <= max_save_ratio * saved, f"{text}; expected at most {max_save_ratio} of torch.save"
    return text


def check_memory(device: str, folder: Path) -> str:
    """Compare the memory after 100 snapshots with that after the first ones."""
    saving = Saving(State(20e6, device), folder / "run")
    for _ in range(10):
        saving.save()
    saving.wait()
    before = _used_bytes(device)
    for _ in range(90):
        saving.save()
    saving.wait()
    growth = {name: used - before[name] for name, used in _used_bytes(device).items()}
    text = ", ".join(f"{name} {used / 1e6:+.0f} MB" for name, used in growth.items())
    assert growth["host"] <= MAX_GROWTH_BYTES, f"{text}; expected at most {MAX_GROWTH_BYTES / 1e6:.0f} MB"
    assert growth.get("device", 0) == 0, f"{text}; expected no growth on the device"
    return text


def _measure(function: Callable[[], None], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def _used_bytes(device: str) -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    used = {"host": next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))}
    if device == "cuda":
        synchronize(device)
        used["device"] = torch.cuda.memory_allocated()
    return used
