"""Time that Monitor adds to an iteration, compared with the same training without it.

``python benchmarks/monitor.py [--iterations N] [--rounds N]``

A network with two layers of 256 units trains on batches of 64 samples on one thread, and LogReport writes the means of
every hundred iterations. The three cases run alternately in one process. Printed are microseconds of
processor time per iteration on the training thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from typing import Any

import torch
from _measure import Figure, format_spread, interleave, ratios
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions


def microseconds(iterations: int, create_monitor: Any) -> float:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = [torch.rand(64, 256)] * iterations
    with tempfile.TemporaryDirectory() as out:
        added = [create_monitor()] if create_monitor else []
        log = extensions.LogReport(trigger=(100, "iteration"))
        manager = pte.ExtensionsManager(model, 1, [*added, log], optimizers=optimizer, out_dir=out)
        start = None
        for batch in manager.batches(loader):
            start = start or time.thread_time()  # without the one-time initialization
            with manager.run_iteration(step_optimizers=["main"]):
                loss = model(batch).square().mean()
                loss.backward()
                pte.report({"train/loss": loss})
        assert start
        return (time.thread_time() - start) / iterations * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases: dict[str, Any] = {
        "without Monitor": None,
        "with Monitor": extensions.Monitor,
        "with Monitor(gradient_norm=False)": partial(extensions.Monitor, gradient_norm=False),
    }
    functions = {name: partial(microseconds, args.iterations, create) for name, create in cases.items()}
    times = interleave(args.rounds, functions)
    for name, values in times.items():
        print(f"an iteration {name}: {format_spread(values)} us")
    baseline = times.pop("without Monitor")
    for (name, values), target in zip(times.items(), ("<= 1.3", "<= 1.15"), strict=True):
        Figure(f"an iteration {name}", "without Monitor", ratios(values, baseline), target).publish()


if __name__ == "__main__":
    main()
