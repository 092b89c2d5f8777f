"""Stages of a row of five tensors on the training thread, for ``row_cost.py --profile``.

Each stage is replaced in turn by a function that does nothing. The time of a stage is the time that a block of rows
takes less than a complete block, in the lower quartiles over the rounds. The write to the journal is measured by
itself. The stages within a stage are subtracted. Times are CPU times of the thread. Other load on the machine affects
them less than the time of a clock, and adds noise to the differences.
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import torch
from _peers import Log, encode_and_write, pte_manager, pte_run, to_floats
from peers import NAMES

import pte_tracking
from pte_backends.json import _log_file
from pte_tracking._delivery.inline import InlineConsumer
from pte_tracking._runs import run
from pte_tracking._runs.row_history import RowHistory
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store import journal
from pte_tracking._store.event_encoding import encode
from pte_tracking._store.events import Metrics
from pte_tracking.extensions import LogReport
from pte_tracking.reporter._frames import current
from tests import servers

WARM_UP_ROWS = 30  # during which the interpreter specializes the changed code
ROWS = 150
FLOATS = dict.fromkeys(NAMES, 0.123456789)
EVENT = Metrics(1, 0.0, 1, FLOATS)
LINE = encode(EVENT)


class Stage(NamedTuple):
    """Part of a row.

    Attributes:
        label: Description.
        outer: Label of the stage that contains it. Empty for a part of the row itself.
        owner: Object whose attribute is replaced. None for a stage that is measured by itself.
        attribute: Name of the function.
        make: Returns a function that replaces it at the beginning of a block.
    """

    label: str
    outer: str
    owner: Any
    attribute: str
    make: Callable[[], Any]


def _report_floats(values: object) -> None:
    current.get().observation.update(FLOATS)  # type: ignore[union-attr]


def _make_append() -> Callable[..., Metrics]:
    # This time is between the next two checks of the delivery process, which are two seconds apart.
    event = msgspec.structs.replace(EVENT, time=time.time() + 1)
    return lambda *args: event


def _make_ignore() -> Callable[..., None]:
    return lambda *args: None


_ADD = "event: RunWriter.add"
_APPEND = "journal: Journal.append_locked"
_JSON = "JSON log: InlineConsumer.deliver_event"
_ROW = "LogReport: its row"
RUN_STAGES = [
    Stage(".item(), and checks of the values", "", run, "to_numbers", lambda: lambda values: FLOATS),
    Stage(_ADD, "", RunWriter, "add", _make_ignore),
    Stage(_APPEND, _ADD, journal.Journal, "append_locked", _make_append),
    Stage("encoding", _APPEND, journal, "encode", lambda: lambda event: LINE),
    Stage("write", _APPEND, None, "", _make_ignore),
    Stage("history of rows", _ADD, RowHistory, "add", _make_ignore),
]
MANAGER_STAGES = [
    Stage("report, with .item() and checks", "", pte_tracking, "report", lambda: _report_floats),
    Stage(_ROW, "", LogReport, "_log_row", _make_ignore),
    Stage(_ADD, _ROW, RunWriter, "add", _make_ignore),
    *RUN_STAGES[2:],
]
JSON_STAGES = [
    *MANAGER_STAGES,
    Stage(_JSON, _ADD, InlineConsumer, "deliver_event", _make_ignore),
    Stage("row of the JSON log", _JSON, _log_file.LogFile, "append", _make_ignore),
    Stage("encoding for the JSON log", "row of the JSON log", _log_file, "_encode", lambda: lambda values: LINE),
    Stage(
        "write to the JSON log", "row of the JSON log", _log_file, "write_at", lambda: lambda file, data, at: len(data)
    ),
]


def measure_block(log: Callable[..., object], step: int) -> float:
    """Return the CPU microseconds of a row in a block."""
    values = {key: torch.rand(()) for key in NAMES}
    for number in range(WARM_UP_ROWS):
        log(values, step + number)
    start = time.thread_time_ns()
    for number in range(WARM_UP_ROWS, WARM_UP_ROWS + ROWS):
        log(values, step + number)
    return (time.thread_time_ns() - start) / 1000 / ROWS


def measure_stages(
    logs: Iterable[tuple[str, Log, list[Stage]]], floors: dict[str, Log], rounds: int
) -> dict[str, list[float]]:
    """Return the CPU microseconds of the floor, of complete rows, and of rows without a stage, in each round."""
    times: dict[str, list[float]] = {}
    step = 1
    for _ in range(rounds):
        for name, floor in floors.items():
            times.setdefault(name, []).append(measure_block(floor, step))
        for title, log, stages in logs:
            times.setdefault(title, []).append(measure_block(log, step))
            for stage in stages:
                if stage.owner is None:
                    continue
                with mock.patch.object(stage.owner, stage.attribute, stage.make()):
                    times.setdefault(title + stage.label, []).append(measure_block(log, step))
            step += WARM_UP_ROWS + ROWS
    return times


def print_profile(rounds: int) -> None:
    """Measure, and print a table for each kind of row."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        servers.make_store(folder / "mlflow.db")
        store = f"sqlite:///{folder / 'mlflow.db'}"
        logging.getLogger("pte_tracking").setLevel(logging.CRITICAL)  # steps and sequence numbers are repeated
        file = os.open(folder / "write", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        floors: dict[str, Log] = {
            "floor": stack.enter_context(encode_and_write(folder, store)),
            ".item()": lambda values, step: to_floats(values),
            "write": lambda values, step: os.write(file, LINE),
        }
        both = ("tensorboard", "mlflow")
        contexts = {
            "Run.log_metrics": (pte_run(folder, store, close_timeout=1), RUN_STAGES),
            "manager and LogReport": (pte_manager(folder / "2", store, both, close_timeout=1), MANAGER_STAGES),
            "the same and the JSON log": (
                pte_manager(folder / "3", store, ("json", *both), close_timeout=1),
                JSON_STAGES,
            ),
        }
        logs = [(title, stack.enter_context(context), stages) for title, (context, stages) in contexts.items()]
        measure_stages(logs, floors, 1)  # opens the runs
        times = measure_stages(logs, floors, rounds)
        os.close(file)
    quartiles = {name: statistics.quantiles(own, n=4)[0] for name, own in times.items()}
    print(f"{'':58s}{'microseconds':>12s}  {'floors':>6s}")
    print_line("floor: five .item(), encode, write", quartiles["floor"], quartiles, 0)
    print_line("five .item()", quartiles[".item()"], quartiles, 1)
    print_line("write", quartiles["write"], quartiles, 1)
    for title, _, stages in logs:
        print_stages(title, stages, quartiles)


def print_stages(title: str, stages: list[Stage], quartiles: dict[str, float]) -> None:
    """Print a row and its stages, each without the stages within it."""
    whole = {"": quartiles[title], "write": quartiles["write"]}
    whole |= {stage.label: quartiles[title] - quartiles[title + stage.label] for stage in stages if stage.owner}
    print_line(title, quartiles[title], quartiles, 0)

    def print_parts(label: str, depth: int) -> None:
        parts = [stage.label for stage in stages if stage.outer == label]
        for part in parts:
            print_parts(part, depth + 1)
        rest = whole[label] - sum(whole[part] for part in parts)
        print_line(f"{label or 'iteration, arguments'}{' (the rest)' if parts else ''}", rest, quartiles, max(depth, 1))

    print_parts("", 0)


def print_line(label: str, microseconds: float, quartiles: dict[str, float], depth: int) -> None:
    print(f"{'  ' * depth + label:58s}{microseconds:12.2f}  {microseconds / quartiles['floor']:6.2f}")
