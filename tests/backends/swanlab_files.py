"""SwanLab files, read with the reader of ``swanlab sync``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.sdk.internal.core_python.store import DataStoreReader

from pte_tracking.testing import Points


def run_directory(directory: Path) -> Path:
    """Return the directory of the SwanLab run in a run directory."""
    (path,) = directory.glob("swanlab/run-*")
    return path


def read_file(path: Path) -> Iterator[Record]:
    """Return the records of a file, in order."""
    reader = DataStoreReader()
    reader.open(path)
    try:
        for raw in reader:
            yield Record.FromString(raw)
    finally:
        reader.close()


def read_records(directory: Path) -> list[Record]:
    """Return the records of the SwanLab run in a run directory."""
    (path,) = run_directory(directory).glob("run-*.swanlab")
    return list(read_file(path))


def read_points(directory: Path) -> Points:
    """Return the numbers of a run by key."""
    points: Points = {}
    for record in read_records(directory):
        if record.HasField("scalar"):
            points.setdefault(record.scalar.key, []).append((record.scalar.step, record.scalar.value.number))
    return points


def read_config(directory: Path) -> dict[str, Any]:
    """Return the last configuration of a run."""
    payloads = [record.save.payload for record in read_records(directory) if record.save.name == "config"]
    return {key: item["value"] for key, item in json.loads(payloads[-1]).items()}
