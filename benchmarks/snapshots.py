"""Time that a snapshot blocks the training, and slowdown of iterations while it is written.

``python benchmarks/snapshots.py [--rounds N]``

A small network trains in steps of about 2 ms, and a state of 200 MB in 200 tensors is saved. In each round, the cases
follow one another: a copy of the state into memory that is already allocated (a lower bound), torch.save, our snapshot
with and without a background thread, those of pytorch-pfn-extras (whose ThreadWriter does not copy the state, so that
later steps change the file), AsyncCheckpointIO of Lightning, and async_save of torch.distributed.checkpoint. Printed
are:

- blocked: milliseconds until the training continues
- written after: milliseconds until the file is written
- slowdown: duration of steps while the file is written, as a ratio to steps afterward
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_pfn_extras as ppe
import torch
import torch.distributed.checkpoint as dcp
from _measure import Figure, format_spread, interleave, ratios
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking.extensions.training_snapshot import TrainingSnapshot

TENSORS, ELEMENTS = 200, 250_000


class State(nn.Module):
    """State of 200 MB."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(ELEMENTS) for _ in range(TENSORS))


class Training:
    """Small training that measures each step."""

    def __init__(self) -> None:
        self._model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)])
        self._optimizer = torch.optim.SGD(self._model.parameters(), 0.01)
        self._input = torch.randn(64, 256)

    def step(self) -> float:
        start = time.perf_counter()
        self._optimizer.zero_grad()
        self._model(self._input).square().mean().backward()
        self._optimizer.step()
        return time.perf_counter() - start

    def steps(self, should_stop: Callable[[], bool]) -> list[float]:
        times = [self.step()]
        while not should_stop():
            times.append(self.step())
        return times


class Case:
    """Method of saving the state.

    Args:
        save: Saves the state, or starts to save it in the background.
        is_written: Returns whether the last state is written. Defaults to always.
    """

    def __init__(self, save: Callable[[], object], is_written: Callable[[], bool] = lambda: True) -> None:
        self._save = save
        self._is_written = is_written

    def run(self, training: Training) -> dict[str, float]:
        start = time.perf_counter()
        self._save()
        blocked = time.perf_counter() - start
        times_during = training.steps(self._is_written)
        written = time.perf_counter() - start
        while not self._is_written():
            time.sleep(0.001)
        deadline = time.perf_counter() + 1.5
        times_otherwise = training.steps(lambda: time.perf_counter() > deadline)
        return {
            "blocked": blocked * 1e3,
            "written after": written * 1e3,
            "slowdown": statistics.mean(times_during) / statistics.mean(times_otherwise),
        }


def create_pte_case(state: State, out: Path, asynchronous: bool) -> Case:
    snapshot = extensions.snapshot("s", asynchronous=asynchronous)
    assert isinstance(snapshot, TrainingSnapshot)
    manager = pte.ExtensionsManager(state, 1, out_dir=out, iters_per_epoch=1_000_000, sinks=[])
    with manager.run_iteration():
        pass
    writer = snapshot._writer

    def is_written() -> bool:
        return writer._thread is None or not writer._thread.is_alive()

    return Case(lambda: snapshot(manager), is_written)


def create_ppe_case(state: State, out: Path, writer: Any) -> Case:
    snapshot = ppe.training.extensions.snapshot(filename="s", writer=writer)
    manager = ppe.training.ExtensionsManager({"main": state}, {}, 1, iters_per_epoch=1_000_000, out_dir=str(out))
    with manager.run_iteration():
        pass
    snapshot.initialize(manager)
    return Case(
        lambda: snapshot(manager), lambda: getattr(writer, "_worker", None) is None or not writer._worker.is_alive()
    )


def create_dcp_case(state: State, out: Path) -> Case:
    futures: list[Future[Any]] = []

    def save() -> None:
        future = dcp.async_save({"models": state.state_dict()}, checkpoint_id=out)
        assert isinstance(future, Future)
        futures[:] = [future]

    return Case(save, lambda: futures[0].done())


def create_lightning_case(state: State, out: Path) -> Case:
    from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

    class SignalingIO(TorchCheckpointIO):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            super().save_checkpoint(*args, **kwargs)
            written.set()

    written = threading.Event()
    checkpoint_io = AsyncCheckpointIO(SignalingIO())

    def save() -> None:
        written.clear()
        checkpoint_io.save_checkpoint({"state_dict": state.state_dict()}, out / "last.ckpt")

    return Case(save, written.is_set)


def create_cases(folder: Path) -> Iterator[tuple[str, Case]]:
    state = State()
    warm = [torch.randn(ELEMENTS) for _ in range(TENSORS)]
    yield (
        "a copy into warm memory",
        Case(lambda: [to.copy_(of.detach()) for to, of in zip(warm, state.weights, strict=True)]),
    )
    yield "torch.save", Case(lambda: torch.save({"models": state.state_dict()}, folder / "torch"))
    yield "snapshot()", create_pte_case(state, folder / "asynchronous", True)
    yield "snapshot(asynchronous=False)", create_pte_case(state, folder / "synchronous", False)
    yield "ppe", create_ppe_case(state, folder / "ppe", ppe.writing.SimpleWriter(out_dir=str(folder)))
    yield (
        "ppe, ThreadWriter (no copy)",
        create_ppe_case(state, folder / "ppe_thread", ppe.writing.ThreadWriter(out_dir=str(folder))),
    )
    if importlib.util.find_spec("lightning"):
        yield "Lightning, AsyncCheckpointIO", create_lightning_case(state, folder / "lightning")
    yield "dcp.async_save", create_dcp_case(state, folder / "dcp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    training = Training()
    for _ in range(200):
        training.step()
    with tempfile.TemporaryDirectory() as folder:
        cases = dict(create_cases(Path(folder)))
        for case in cases.values():
            case.run(training)  # the first call allocates memory
        results = interleave(args.rounds, {name: partial(case.run, training) for name, case in cases.items()})
    for quantity in ("blocked", "written after", "slowdown"):
        print(f"\n{quantity}")
        for name in cases:
            print(f"  {name:30} {format_spread([result[quantity] for result in results[name]])}")
    blocked = {name: [result["blocked"] for result in rounds] for name, rounds in results.items()}
    for baseline, target in (("a copy into warm memory", "<= 1.5"), ("torch.save", "<= 0.15")):
        blocked_ratios = ratios(blocked["snapshot()"], blocked[baseline])
        Figure("training blocked by a snapshot of 200 MB", baseline, blocked_ratios, target).publish()
    slowdowns = [result["slowdown"] for result in results["snapshot()"]]
    Figure("an iteration while a snapshot is written", "an iteration afterward", slowdowns, "<= 1.10").publish()


if __name__ == "__main__":
    main()
