"""The checks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import reports
import resumes
import snapshots


class Item(NamedTuple):
    """One check.

    Attributes:
        title: Subject of the check.
        check: Function of the device and an empty directory that returns a detail to print, and raises if the check
            fails.
        gpu_part: Part that only a GPU can show.
        is_checked_on_cpu: Whether a CPU shows the other parts. Otherwise, it only runs the same code.
    """

    title: str
    check: Callable[[str, Path], str]
    gpu_part: str
    is_checked_on_cpu: bool = True


#: The compilation takes most of the time, so it is the last one.
ITEMS = {
    "amp": Item("bit-exact resume with AMP, GradScaler, and dropout", resumes.check_amp, "half precision"),
    "generators": Item("bit-exact resume with separate generators", resumes.check_generators, "generators of a GPU"),
    "pinned": Item(
        "bit-exact resume with pinned batches and asynchronous copies",
        resumes.check_pinned,
        "copies to a GPU",
        is_checked_on_cpu=False,
    ),
    "process-group": Item("bit-exact resume with DistributedDataParallel on one rank", resumes.check_ranks, "NCCL"),
    "copies": Item(
        "snapshot of weights that change while it is copied and written", snapshots.check_copies, "page-locked memory"
    ),
    "memory": Item("memory after 100 snapshots", snapshots.check_memory, "memory of a GPU"),
    "stall": Item(
        "training blocked by a snapshot", snapshots.check_stall, "copies from a GPU", is_checked_on_cpu=False
    ),
    "report": Item(
        "no synchronization by report() in 1,000 steps",
        reports.check_synchronization,
        "calls that wait for a GPU",
        is_checked_on_cpu=False,
    ),
    "compiled": Item("bit-exact resume of a compiled model", resumes.check_compiled, "compilation for a GPU"),
}
