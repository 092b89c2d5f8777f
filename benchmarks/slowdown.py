"""Effect of tracking on the training: slower steps, and iterations during an outage.

``python benchmarks/slowdown.py``

- Steps of about 2 ms, with and without a row per step to the JSON log, TensorBoard, and MLflow. Printed is the ratio,
  with one and with two threads of torch.
- The 99th percentile of the time that an iteration spends on such a row, with an MLflow server that is down and with
  one that responds. Printed are microseconds and their ratio.
"""

from __future__ import annotations

import logging
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from _measure import Figure, format_spread, interleave, ratios
from torch import nn

import pte_tracking as pte
from pte_backends.mlflow import MLflowSink
from pte_tracking import extensions
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK
from tests import servers

NAMES = [f"train/{name}" for name in "abcde"]
UNREACHABLE_URI = "http://127.0.0.1:9"


class Step:
    """Training step of about 2 ms."""

    def __init__(self) -> None:
        self._model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)])
        self._optimizer = torch.optim.SGD(self._model.parameters(), 0.01)
        self._input = torch.randn(64, 256)

    def __call__(self) -> torch.Tensor:
        self._optimizer.zero_grad()
        loss: torch.Tensor = self._model(self._input).square().mean()
        loss.backward()
        self._optimizer.step()
        return loss.detach()


@contextmanager
def tracked_training(sink: MLflowSink) -> Iterator[tuple[pte.ExtensionsManager, int]]:
    """Yield a manager and the process ID of its delivery process, after the imports of that process."""
    with tempfile.TemporaryDirectory() as folder:
        manager = pte.ExtensionsManager(
            {},
            1,
            [extensions.LogReport(trigger=(1, "iteration"))],
            iters_per_epoch=10**9,
            out_dir=folder,
            sinks=["json", "tensorboard", sink],
            close_timeout=0,
        )
        with manager.run_iteration():
            pte.report(dict.fromkeys(NAMES, 0.0))
        time.sleep(5)
        holder = lock.holder(Path(folder) / DELIVERY_LOCK)
        assert holder is not None
        assert holder.pid is not None
        delivery_pid = holder.pid
        try:
            yield manager, delivery_pid
        finally:
            # The delivery process would slow down the next measurement and retry an unreachable server indefinitely.
            os.kill(delivery_pid, signal.SIGKILL)
            manager.close()


def slowdown(sink: MLflowSink) -> list[float]:
    step = Step()

    def measure_untracked(seconds: float) -> float:
        times = []
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            loss = step()
            {name: loss + index for index, name in enumerate(NAMES)}
            times.append(time.perf_counter() - start)
        return statistics.mean(times)

    with tracked_training(sink) as (manager, delivery_pid):

        def tracked_step() -> None:
            with manager.run_iteration():
                loss = step()
                pte.report({name: loss + index for index, name in enumerate(NAMES)})

        def measure_tracked(seconds: float) -> float:
            os.kill(delivery_pid, signal.SIGCONT)
            # A throttling pause may have ended while the process was stopped, so it delivers a batch immediately.
            # Leave that batch out of the measurement.
            end = time.perf_counter() + 1
            while time.perf_counter() < end:
                tracked_step()
            times = []
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                tracked_step()
                times.append(time.perf_counter() - start)
            # The process always has pending events. Stop it only while the untracked step is measured.
            os.kill(delivery_pid, signal.SIGSTOP)
            return statistics.mean(times)

        measure_tracked(5)
        times = interleave(
            9,
            {
                "with": partial(measure_tracked, 5),
                "without": partial(measure_untracked, 3),
                "without again": partial(measure_untracked, 3),
            },
        )
    # The ratio of two measurements of the same step shows the accuracy of the result.
    print(f"step without tracking: {format_spread([1e3 * seconds for seconds in times['without']])} ms")
    print(
        "step without tracking, second measurement to first: "
        f"{format_spread(ratios(times['without again'], times['without']))}"
    )
    return ratios(times["with"], times["without"])


def measure_p99(sink: MLflowSink) -> float:
    """Return the 99th percentile of the microseconds that an iteration takes in addition to its work."""
    x, microseconds = torch.rand(64, 64), []
    with tracked_training(sink) as (manager, _):
        for _ in range(3000):
            end = time.perf_counter() + 0.0005
            while time.perf_counter() < end:
                mean = (x @ x.T).mean()
            values = {name: mean + index for index, name in enumerate(NAMES)}
            start = time.perf_counter()
            with manager.run_iteration():
                pte.report(values)
            microseconds.append((time.perf_counter() - start) * 1e6)
    return statistics.quantiles(microseconds, n=100)[-1]


def main() -> None:
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    # Killing the delivery process leaves pending events, which would be logged as warnings.
    logging.getLogger("pte_tracking").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        template = folder / "mlflow-template.db"
        servers.make_store(template)
        for subdirectory in ("store", "server"):
            (folder / subdirectory).mkdir()
        store = f"sqlite:///{servers.copy_store(template, folder / 'store')}"
        for threads in (1, 2):
            torch.set_num_threads(threads)
            label = f"a step of 2 ms ({threads} of {os.cpu_count()} cores), one row per step to three sinks"
            Figure(label, "the step without tracking", slowdown(MLflowSink(store)), "<= 1.02").publish()
        with servers.mlflow_server(folder / "server", template) as uri:
            sinks = {"down": MLflowSink(UNREACHABLE_URI), "healthy": MLflowSink(uri)}
            times = interleave(7, {case: partial(measure_p99, sink) for case, sink in sinks.items()})
    for case, p99s in times.items():
        print(f"99th percentile, server {case}: {format_spread(p99s)} us")
    p99_ratios = ratios(times["down"], times["healthy"])
    Figure("p99 of an iteration, server down", "server healthy", p99_ratios, "<= 1.1").publish()


if __name__ == "__main__":
    main()
