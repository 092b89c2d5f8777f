"""What the benchmarks share: rounds in turns, a median with its spread, and lines of one table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")
#: The variable that names the file of the common table, a figure a line.
_TABLE = "PTE_BENCHMARK_TABLE"


class Figure(NamedTuple):
    """One line of the table.

    Attributes:
        work: What was done.
        against: What it was compared with; or the unit, where a plain number counts.
        values: Ours to theirs, or the number, one for each round.
        target: The most that it should be, or the least, such as ``"<= 0.2"``.
    """

    name: str
    baseline: str
    values: Sequence[float]
    target: str

    @property
    def is_target_met(self) -> bool:
        """Whether the median keeps to the target."""
        bound, limit = self.target.split()
        median = statistics.median(self.values)
        return median <= float(limit) if bound == "<=" else median >= float(limit)

    def publish(self) -> None:
        """Print it, and leave it for the table of ``all.py``."""
        print(f"{self.name} ({self.baseline}): {format_spread(self.values)}, wanted {self.target}")
        if path := os.environ.get(_TABLE):
            with open(path, "a") as file:
                print(json.dumps(self), file=file)


def interleave(rounds: int, functions: Mapping[_Key, Callable[[], _Result]]) -> dict[_Key, list[_Result]]:
    """What each of several works returned, round for round; in each round one comes after the other."""
    results: dict[_Key, list[_Result]] = {key: [] for key in functions}
    for _ in range(rounds):
        for key, function in functions.items():
            results[key].append(function())
    return results


def ratios(values: Sequence[float], baselines: Sequence[float]) -> list[float]:
    """Round for round."""
    return [value / baseline for value, baseline in zip(values, baselines, strict=True)]


def format_spread(values: Sequence[float]) -> str:
    """The median, and the lowest and the highest."""
    median, low, high = (
        f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low} to {high})"


def run_benchmark(script: str) -> list[Figure]:
    """Run a benchmark in a process of its own, let it print, and return its figures.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.NamedTemporaryFile("r") as table:
        done = subprocess.run([sys.executable, script], env={**os.environ, _TABLE: table.name})
        if done.returncode:
            raise RuntimeError(f"{script} failed with {done.returncode}")
        return [Figure(*json.loads(line)) for line in table]
