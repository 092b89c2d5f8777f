"""Contract tests of the CSV backend, read with pandas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas

from pte_backends.csv import CsvSink
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract


class TestCsv(SinkContract):
    large_run_rows = 5000
    generated_runs = 5

    def make_sink(self, folder: Path) -> Sink:
        assert list(folder.iterdir()) == [], "The contract promises an empty directory."
        return CsvSink()

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        # As text, because the default parser of older versions of pandas changes the last digit of some numbers.
        table = pandas.read_csv(run_directory / "log.csv", dtype=str, keep_default_na=False)
        points: Points = {}
        for key in table.columns[3:]:
            rows = table[table[key] != ""]
            points[key] = list(zip(rows["iteration"].astype(int), rows[key].astype(float), strict=True))
        return points

    def find_source(self, sink: Sink, run_directory: Path) -> tuple[str, Mapping[str, str]]:
        return str(run_directory / "log.csv"), {}

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        table = pandas.read_csv(run_directory / "log.csv")
        assert list(table.columns) == ["iteration", "epoch", "elapsed_time", "a"]
        return {"metrics": "native" if table["a"].tolist() == [1.0] else None}
