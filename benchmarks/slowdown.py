"""What the training notices of it: a slower step, a dead server, a later start.

``python benchmarks/slowdown.py`` takes, in turns and round for round, a training whose steps take about 2 ms, with and
without a row in each iteration to the JSON log, TensorBoard and MLflow; the same rows beside a server that answers and
one that is not there; and starts of Python with and without tracking.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch
from _measure import Figure, in_turns, ratios, spread
from torch import nn

import pte_tracking as pte
from pte_mlflow import MLflowSink
from pte_tracking import extensions
from tests import servers

STEPS = 400
NAMES = [f"train/{name}" for name in "abcde"]
NOBODY = "http://127.0.0.1:9"
START = """
import time, torch
begin = time.perf_counter()
import pte_tracking as pte
from pte_tracking import extensions
from pte_mlflow import MLflowSink
manager = pte.ExtensionsManager(
    {}, 1, [extensions.LogReport(trigger=(1, "iteration"))], iters_per_epoch=9, out_dir=OUT,
    sinks=["json", "tensorboard", MLflowSink(STORE)],
)
with manager.run_iteration():
    print((time.perf_counter() - begin) * 1000)
"""


class Step:
    """About 2 ms of training."""

    def __init__(self) -> None:
        self._model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)])
        self._optimizer = torch.optim.SGD(self._model.parameters(), 0.01)
        self._input = torch.randn(64, 256)

    def __call__(self) -> torch.Tensor:
        self._optimizer.zero_grad()
        loss = self._model(self._input).square().mean()
        loss.backward()
        self._optimizer.step()
        return loss.detach()


def manager(folder: Path, uri: str) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        {},
        1,
        [extensions.LogReport(trigger=(1, "iteration"))],
        iters_per_epoch=10**9,
        out_dir=folder,
        sinks=["json", "tensorboard", MLflowSink(uri)],
        close_timeout=0.1,
    )


def slowdown(folder: Path, store: str, rounds: int) -> list[float]:
    step = Step()
    with manager(folder / "slowdown", store) as tracked:

        def without() -> float:
            begin = time.perf_counter()
            for _ in range(STEPS):
                loss = step()
                {name: loss + index for index, name in enumerate(NAMES)}
            return time.perf_counter() - begin

        def with_tracking() -> float:
            begin = time.perf_counter()
            for _ in range(STEPS):
                with tracked.run_iteration():
                    loss = step()
                    pte.report({name: loss + index for index, name in enumerate(NAMES)})
            taken = time.perf_counter() - begin
            time.sleep(2)  # the delivery catches up beside nobody's measurement
            return taken

        without()
        with_tracking()
        times = in_turns(rounds, {"with": with_tracking, "without": without, "without again": without})
    # How much two measurements of the very same differ here: what the ratio can be trusted to.
    print(f"the step alone, measured twice: {spread(ratios(times['without again'], times['without']))}")
    return ratios(times["with"], times["without"])


def dead_to_healthy(folder: Path, uri: str, rounds: int) -> list[float]:
    x = torch.rand(64, 64)

    def p99(tracked: pte.ExtensionsManager) -> float:
        taken = []
        for _ in range(1500):
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                mean = (x @ x.T).mean()
            values = {name: mean + index for index, name in enumerate(NAMES)}
            begin = time.perf_counter()
            with tracked.run_iteration():
                pte.report(values)
            taken.append(time.perf_counter() - begin)
        return statistics.quantiles(taken, n=100)[-1]

    with closing(manager(folder / "dead", NOBODY)) as dead, closing(manager(folder / "healthy", uri)) as healthy:
        p99(dead)
        p99(healthy)
        times = in_turns(rounds, {"dead": lambda: p99(dead), "healthy": lambda: p99(healthy)})
    print(f"p99 with a dead server: {spread([1e6 * one for one in times['dead']])} us")
    return ratios(times["dead"], times["healthy"])


def start(folder: Path, store: str, number: int) -> float:
    """Milliseconds from ``import pte_tracking`` into the first iteration."""
    code = START.replace("OUT", repr(str(folder / f"start{number}"))).replace("STORE", repr(store))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    time.sleep(3)  # its delivery ends
    return float(done.stdout)


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        for place in ("store", "server"):
            (folder / place).mkdir()
        store = f"sqlite:///{servers.copy_store(template, folder / 'store')}"
        target = "the step alone"
        Figure("a step of 2 ms, each a row to all three", target, slowdown(folder, store, 21), "<= 1.02").tell()
        with servers.mlflow_server(folder / "server", template) as uri:
            found = dead_to_healthy(folder, uri, 7)
        Figure("p99 of an iteration, server dead", "server healthy", found, "<= 1.1").tell()
        starts = [start(folder, store, number) for number in range(7)]
        Figure("start-up with all three sinks", "ms", starts, "<= 100").tell()


if __name__ == "__main__":
    main()
