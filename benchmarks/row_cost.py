"""Time of the training thread for a row of five tensors, in microseconds and in units of the floor.

``python benchmarks/row_cost.py [--rounds N] [--repeats N] [--against WORKTREE] [--profile]``

The floor is the least that a durable row costs: five ``.item()``, one encoding, and one ``write``. The floor and all
candidates take turns in one process, a block of 100 rows each, so that other load on the machine affects all of them. A
ratio compares a block with the floor of the same round. Rows follow each other immediately ("tight"), or after half a
millisecond of torch work ("spaced"), which uses the caches and is not counted.

``--against`` alternates with the same measurement of another checkout, such as
``git worktree add ../before COMMIT``.

``--profile`` prints the stages of a row instead, in CPU time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _measure import Figure, format_spread, interleave
from _peers import Log, encode_and_write, pte_manager, pte_run
from _row_profile import print_profile
from peers import NAMES, simulate_work

from tests import servers

ROWS = 100
BOTH = ("tensorboard", "mlflow")
MODES = ("tight", "spaced")
LABELS = {
    "floor": "five .item(), encode, write",
    "run": "Run.log_metrics, both",
    "manager": "manager and LogReport, both",
    "three": "manager and LogReport, both and the JSON log",
}
COLUMNS = ["median (us)", "p99 (us)", "CPU (us)", "median (floors)", "p99 (floors)"]
#: Candidate, mode, column, and bound of each figure with a target.
TARGETS = [
    ("run", "tight", "median (floors)", "<= 1.5"),
    ("manager", "tight", "median (floors)", "<= 2"),
    ("manager", "tight", "p99 (us)", "<= 60"),
    ("run", "spaced", "median (us)", "<= 8"),
    ("three", "spaced", "median (us)", "<= 15"),
    ("three", "spaced", "p99 (us)", "<= 100"),
]
#: Microseconds of each row, and the mean CPU time of the thread.
Block = tuple[list[float], float]
#: Values of the columns by mode and candidate.
Result = dict[str, dict[str, list[float]]]


def measure_block(log: Log, first_step: int, *, is_tight: bool) -> Block:
    """Log rows, and return the microseconds of each row, and the mean CPU time of the thread."""
    x, times, work_cpu = torch.rand(64, 64), [], 0
    values = {key: torch.rand(()) for key in NAMES}
    start_cpu = time.thread_time_ns()
    for step in range(first_step, first_step + ROWS):
        if not is_tight:
            work_start = time.thread_time_ns()
            mean = simulate_work(x)
            values = {key: mean + index for index, key in enumerate(NAMES)}
            work_cpu += time.thread_time_ns() - work_start
        start = time.perf_counter_ns()
        log(values, step)
        times.append((time.perf_counter_ns() - start) / 1000)
    return times, (time.thread_time_ns() - start_cpu - work_cpu) / 1000 / ROWS


def measure(rounds: int) -> Result:
    """Let the candidates take turns, and return the columns: the medians over the rounds."""
    blocks: dict[str, dict[str, list[Block]]] = {mode: {name: [] for name in LABELS} for mode in MODES}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        servers.make_store(folder / "mlflow.db")
        store = f"sqlite:///{folder / 'mlflow.db'}"
        contexts = (
            encode_and_write(folder, store),
            pte_run(folder, store, close_timeout=1),
            pte_manager(folder / "both", store, BOTH, close_timeout=1),
            pte_manager(folder / "three", store, ("json", *BOTH), close_timeout=1),
        )
        logs = [stack.enter_context(context) for context in contexts]
        for number in range(2 * (rounds + 1)):
            mode = MODES[number % 2]
            for name, log in zip(LABELS, logs, strict=True):
                block = measure_block(log, 1 + number * ROWS, is_tight=mode == "tight")
                if number >= 2:  # the first rounds open the runs
                    blocks[mode][name].append(block)
    return {mode: summarize(own) for mode, own in blocks.items()}


def summarize(blocks: dict[str, list[Block]]) -> dict[str, list[float]]:
    """Return the columns of each candidate."""
    medians = {name: [statistics.median(times) for times, _ in own] for name, own in blocks.items()}
    p99s = {
        name: statistics.quantiles([row for times, _ in own for row in times], n=100)[-1]
        for name, own in blocks.items()
    }
    ratios = {name: map(float.__truediv__, own, medians["floor"]) for name, own in medians.items()}
    return {
        name: [
            statistics.median(medians[name]),
            p99s[name],
            statistics.median(cpu for _, cpu in blocks[name]),
            statistics.median(ratios[name]),
            p99s[name] / p99s["floor"],
        ]
        for name in LABELS
    }


def measure_checkout(checkout: Path, rounds: int) -> Result:
    """Measure a checkout in a separate process."""
    path = os.pathsep.join(map(str, (checkout, checkout / "backends")))
    command = [sys.executable, __file__, "--measure", "--rounds", str(rounds)]
    environment = {**os.environ, **servers.MLFLOW_ENVIRONMENT, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    lines = [line for line in done.stdout.splitlines() if line.startswith("result:")]
    if not lines:
        raise SystemExit(f"{checkout} failed:\n{done.stdout}{done.stderr}")
    result: Result = json.loads(lines[-1].removeprefix("result:"))
    return result


def print_table(title: str, results: list[Result]) -> None:
    print(title)
    for mode in MODES:
        print(f"  {mode:45s}", *(f"{column:>24s}" for column in COLUMNS))
        for name, label in LABELS.items():
            columns = zip(*(result[mode][name] for result in results), strict=True)
            print(f"  {label:45s}", *(f"{format_spread(column):>24s}" for column in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--profile", action="store_true", help="print the stages of a row")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print("result:" + json.dumps(measure(args.rounds)))
        return
    if args.profile:
        print_profile(args.rounds * args.repeats)
        return
    checkouts = [Path(__file__).resolve().parents[1], *([args.against.resolve()] if args.against else [])]
    functions: dict[Path, Any] = {checkout: partial(measure_checkout, checkout, args.rounds) for checkout in checkouts}
    results = interleave(args.repeats, functions)
    for checkout in checkouts:
        print_table(str(checkout), results[checkout])
    for name, mode, column, target in TARGETS:
        values = [result[mode][name][COLUMNS.index(column)] for result in results[checkouts[0]]]
        quantity, unit = column.removesuffix(")").split(" (")
        Figure(f"a row of 5 values, {mode}, {LABELS[name]}: {quantity}", unit, values, target).publish()


if __name__ == "__main__":
    main()
