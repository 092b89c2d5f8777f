"""Time of the training thread for a row of five tensors, in microseconds and in units of the floor.

``python benchmarks/row_cost.py [--rounds N] [--rows N]``

The floor is the least that a durable row costs: five ``.item()``, one encoding, and one ``write``. The floor and all
candidates take turns in one process, a block of rows each, so that a load on the machine affects all of them. A ratio
compares a block with the floor of the same round. Rows follow each other immediately ("tight"), or after half a
millisecond of torch work, which uses the caches and is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from _measure import Figure, format_spread, ratios
from _peers import Log, encode_and_write, pte_manager, pte_run
from peers import NAMES, simulate_work

from tests import servers

BOTH = ("tensorboard", "mlflow")
THREE = ("json", *BOTH)
LABELS = {
    "floor": "five .item(), encode, write",
    "run": "Run.log_metrics to TensorBoard and MLflow",
    "manager": "manager and LogReport to both",
    "three": "manager and LogReport to both and the JSON log",
}


class Block(NamedTuple):
    """Cost of a block of rows in microseconds.

    Attributes:
        times: Duration of each row.
        thread_time: CPU time of the thread per row, with what the loop itself costs.
    """

    times: list[float]
    thread_time: float

    @property
    def median(self) -> float:
        """Median of the durations."""
        return statistics.median(self.times)


def measure_block(log: Log, first_step: int, rows: int, *, is_tight: bool) -> Block:
    """Log rows, and return what they cost."""
    x, times = torch.rand(64, 64), []
    values = {key: torch.rand(()) for key in NAMES}
    clock, start_cpu, work_cpu = time.perf_counter_ns, time.thread_time_ns(), 0
    for step in range(first_step, first_step + rows):
        if not is_tight:
            work_start = time.thread_time_ns()
            mean = simulate_work(x)
            values = {key: mean + index for index, key in enumerate(NAMES)}
            work_cpu += time.thread_time_ns() - work_start
        start = clock()
        log(values, step)
        times.append((clock() - start) / 1000)
    return Block(times, (time.thread_time_ns() - start_cpu - work_cpu) / 1000 / rows)


def measure(rounds: int, rows: int, *, is_tight: bool) -> dict[str, list[Block]]:
    """Let the candidates take turns, and return the blocks of each."""
    blocks: dict[str, list[Block]] = {name: [] for name in LABELS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers.make_store(folder / "mlflow.db")
        store, candidates = f"sqlite:///{folder / 'mlflow.db'}", {}
        for name, candidate in {
            "floor": encode_and_write(folder, store),
            "run": pte_run(folder, store),
            "manager": pte_manager(folder / "manager", store, BOTH),
            "three": pte_manager(folder / "three", store, THREE),
        }.items():
            candidates[name] = stack.enter_context(candidate)
        for number in range(rounds + 1):
            for name, log in candidates.items():
                block = measure_block(log, 1 + number * rows, rows, is_tight=is_tight)
                if number:  # the first round opens the runs
                    blocks[name].append(block)
    return blocks


def report(mode: str, blocks: dict[str, list[Block]]) -> dict[str, list[float]]:
    """Print a table, and return the ratios of the medians to the floor."""
    medians = {name: [block.median for block in own] for name, own in blocks.items()}
    cpu = {name: [block.thread_time for block in own] for name, own in blocks.items()}
    floors = {name: ratios(values, medians["floor"]) for name, values in medians.items()}
    print(f"{mode}\n  {'':46s}{'median (us)':>24s}{'p99 (us)':>10s}{'CPU (us)':>10s}{'median (floors)':>24s}")
    for name, label in LABELS.items():
        print(
            f"  {label:46s}{format_spread(medians[name]):>24s}{p99(blocks[name]):10.3g}"
            f"{statistics.median(cpu[name]):10.3g}{format_spread(floors[name]):>24s}"
        )
    return floors


def p99(blocks: list[Block]) -> float:
    """Return the 99th percentile of all rows."""
    return statistics.quantiles([row for block in blocks for row in block.times], n=100)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--rows", type=int, default=100)
    args = parser.parse_args()
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    tight = measure(args.rounds, args.rows, is_tight=True)
    floors = report("tight", tight)
    spaced = measure(args.rounds, args.rows, is_tight=False)
    report("after 0.5 ms of work", spaced)
    Figure(f"a row of 5 values, tight: {LABELS['run']}", "floor", floors["run"], "<= 1.5").publish()
    Figure(f"a row of 5 values, tight: {LABELS['manager']}", "floor", floors["manager"], "<= 2").publish()
    Figure("the same: 99th percentile", "us", [p99(tight["manager"])], "<= 60").publish()
    for name, target in {"run": "<= 8", "three": "<= 15"}.items():
        medians = [block.median for block in spaced[name]]
        Figure(f"a row of 5 values, after work: {LABELS[name]}", "us", medians, target).publish()
    Figure("the same: 99th percentile", "us", [p99(spaced["three"])], "<= 100").publish()


if __name__ == "__main__":
    main()
