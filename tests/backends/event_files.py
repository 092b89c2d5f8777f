"""Fake run and readers for tests of TensorBoard event files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata

from pte_backends.tensorboard import TensorBoardSink
from pte_tracking._store.events import (
    AnyEvent,
    Metrics,
    Rewound,
    Status,
)
from pte_tracking.sinks import Connection

TIME = 1_700_000_000.0


@dataclasses.dataclass
class FakeRun:
    """Run whose journal is a list of events."""

    directory: Path
    events: list[AnyEvent] = dataclasses.field(default_factory=list)
    id: str = "0123456789abcdef0123456789abcdef"
    name: str = "result"
    start_time: float = TIME
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def add(self, kind: type[AnyEvent], *fields: Any) -> AnyEvent:
        seq = len(self.events) + 1
        self.events.append(kind(seq, TIME + seq / 8, *fields))
        return self.events[-1]

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        kept: list[AnyEvent] = []
        for event in self.events[:upto_seq]:
            if isinstance(event, Rewound):
                kept = [earlier for earlier in kept if earlier.seq <= event.to_seq]
            kept.append(event)
        return iter(kept)

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        return (event for event in self.history(rewound.seq - 1) if event.seq > rewound.to_seq)


def connect(run: FakeRun, state: Mapping[str, Any] | None = None) -> Connection:
    # The saved state is JSON, so convert it as the cursor does.
    return TensorBoardSink().open(run, json.loads(json.dumps(state or {})))


def deliver(run: FakeRun, events: Sequence[AnyEvent] = (), status: Status | None = None) -> dict[str, Any]:
    connection = connect(run)
    connection.write(events or run.events)
    connection.close(status)
    return connection.state()


def read(run: FakeRun) -> EventAccumulator:
    return EventAccumulator(str(run.directory), STORE_EVERYTHING_SIZE_GUIDANCE).Reload()


def read_scalars(run: FakeRun) -> dict[str, list[tuple[int, str, float]]]:
    """Return the step, the value and the time of each point by tag. Values are text, because NaN differs from
    itself."""
    accumulator = read(run)
    return {
        tag: [(event.step, repr(event.value), event.wall_time) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def format_as_float32(value: float) -> str:
    with np.errstate(over="ignore"):
        return repr(float(np.float32(value)))


def expected(history: Iterable[AnyEvent]) -> dict[str, list[tuple[int, str, float]]]:
    """Return the points that a history produces."""
    points: dict[str, list[tuple[int, str, float]]] = {}
    for row in history:
        if isinstance(row, Metrics):
            epoch = {} if row.epoch is None or "epoch" in row.values else {"epoch": row.epoch}
            for key, value in (row.values | epoch).items():
                point = row.step, format_as_float32(float(value)), row.time
                if key in row.values or row.step not in [step for step, *_ in points.get(key, [])]:
                    points.setdefault(key, []).append(point)
    return points


def read_plugin_data(run: FakeRun, tag: str) -> bytes:
    content: bytes = read(run).SummaryMetadata(tag).plugin_data.content
    return content


def read_status(run: FakeRun) -> str | None:
    if metadata.SESSION_END_INFO_TAG not in read(run).Tags()["tensors"]:
        return None
    info = metadata.parse_session_end_info_plugin_data(read_plugin_data(run, metadata.SESSION_END_INFO_TAG))
    return str(api_pb2.Status.Name(info.status))


def read_hparams(run: FakeRun) -> dict[str, Any]:
    info = metadata.parse_session_start_info_plugin_data(read_plugin_data(run, metadata.SESSION_START_INFO_TAG))
    assert info.group_name == f"{run.name}-{run.id[:6]}"
    assert info.start_time_secs == run.start_time
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in info.hparams.items()}


def read_charts(run: FakeRun) -> dict[str, list[str]]:
    accumulator = read(run)
    if "custom_scalars__config__" not in accumulator.Tags()["tensors"]:
        return {}
    layout = layout_pb2.Layout.FromString(
        accumulator.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    )
    return {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}


def find_event_files(run: FakeRun) -> list[Path]:
    return sorted(run.directory.glob("*tfevents*"))


@contextlib.contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Limit the size of all files, as a full disk does."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def log_rows(run: FakeRun, steps: range) -> list[AnyEvent]:
    return [run.add(Metrics, step, {"train/loss": step / 7, "val/loss": math.nan}, step / 10) for step in steps]
