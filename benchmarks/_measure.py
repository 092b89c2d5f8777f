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

    work: str
    against: str
    values: Sequence[float]
    target: str

    @property
    def is_reached(self) -> bool:
        """Whether the median keeps to the target."""
        bound, limit = self.target.split()
        median = statistics.median(self.values)
        return median <= float(limit) if bound == "<=" else median >= float(limit)

    def tell(self) -> None:
        """Print it, and leave it for the table of ``all.py``."""
        print(f"{self.work} ({self.against}): {spread(self.values)}, wanted {self.target}")
        if path := os.environ.get(_TABLE):
            with open(path, "a") as file:
                print(json.dumps(self), file=file)


def in_turns(rounds: int, works: Mapping[_Key, Callable[[], _Result]]) -> dict[_Key, list[_Result]]:
    """What each of several works returned, round for round; in each round one comes after the other."""
    found: dict[_Key, list[_Result]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            found[key].append(work())
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round for round."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float]) -> str:
    """The median, and the lowest and the highest."""
    median, low, high = (
        f"{one:,.0f}" if one >= 1000 else f"{one:.3g}" for one in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low} to {high})"


def run(script: str) -> list[Figure]:
    """Run a benchmark in a process of its own, let it print, and return its figures.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.NamedTemporaryFile("r") as table:
        done = subprocess.run([sys.executable, script], env={**os.environ, _TABLE: table.name})
        if done.returncode:
            raise RuntimeError(f"{script} failed with {done.returncode}")
        return [Figure(*json.loads(line)) for line in table]
