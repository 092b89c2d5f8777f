"""Helpers for all benchmarks: interleaved rounds, medians with their spread, and the lines of a common table."""

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
#: Environment variable with the path of the common table. Each line of the file is a figure in JSON.
_TABLE = "PTE_BENCHMARK_TABLE"


class Figure(NamedTuple):
    """Measured quantity with a target.

    Attributes:
        name: Name of the quantity.
        baseline: Name of the baseline if the values are ratios, or the unit of the values.
        values: One value per round: the ratio to the baseline, or the quantity.
        target: Upper or lower bound for the median, such as ``"<= 0.2"``.
    """

    name: str
    baseline: str
    values: Sequence[float]
    target: str

    @property
    def is_target_met(self) -> bool:
        """Whether the median meets the target."""
        bound, limit = self.target.split()
        median = statistics.median(self.values)
        return median <= float(limit) if bound == "<=" else median >= float(limit)

    def publish(self) -> None:
        """Print the figure and append it to the table of ``all.py``."""
        print(f"{self.name} ({self.baseline}): {format_spread(self.values)}, target {self.target}")
        if path := os.environ.get(_TABLE):
            with open(path, "a") as file:
                print(json.dumps(self), file=file)


def interleave(rounds: int, functions: Mapping[_Key, Callable[[], _Result]]) -> dict[_Key, list[_Result]]:
    """Call several functions in turn, once per round, and return the results of each function."""
    results: dict[_Key, list[_Result]] = {key: [] for key in functions}
    for _ in range(rounds):
        for key, function in functions.items():
            results[key].append(function())
    return results


def ratios(values: Sequence[float], baselines: Sequence[float]) -> list[float]:
    """Divide the values by the baselines, round by round."""
    return [value / baseline for value, baseline in zip(values, baselines, strict=True)]


def format_spread(values: Sequence[float]) -> str:
    """Format the median, followed by the lowest and the highest value."""
    median, low, high = (
        f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low} to {high})"


def run_benchmark(script: str) -> list[Figure]:
    """Run a benchmark in a separate process and return its figures.

    Args:
        script: Path of the benchmark. Its output is not captured.

    Raises:
        RuntimeError: If the benchmark fails.
    """
    with tempfile.NamedTemporaryFile("r") as table:
        process = subprocess.run([sys.executable, script], env={**os.environ, _TABLE: table.name})
        if process.returncode:
            raise RuntimeError(f"{script} failed with exit code {process.returncode}")
        return [Figure(*json.loads(line)) for line in table]
