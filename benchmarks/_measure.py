"""What the benchmarks share: rounds in turns, a median with its spread, and lines of one table."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")
#: A figure goes to the common table by a line that begins so; the rest is for people.
_MARK = "figure: "


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
        """Print it, for people, and for the table of ``all.py``."""
        print(_MARK + json.dumps(self))


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
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def run(script: str, *arguments: str) -> list[Figure]:
    """Run a benchmark in a process of its own, let it print, and return its figures.

    Raises:
        RuntimeError: It failed.
    """
    found = []
    with subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_MARK):
                found.append(Figure(*json.loads(line.removeprefix(_MARK))))
            else:
                print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"{script} failed with {process.returncode}")
    return found
