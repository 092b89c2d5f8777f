"""Tests of the commands compare and export."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pandas
import pytest

import pte_tracking as pte
from tests.cli.invocation import invoke


def test_compare_shows_differing_params_and_metrics_of_each_run(run: Path, tmp_path: Path) -> None:
    with pte.Run(tmp_path / "other", params={"lr": 0.2, "depth": 3}) as other:
        other.log_metrics({"loss": 2.0, "extra": 1}, 4)
    first, second = str(run), str(tmp_path / "other")
    parsed = json.loads(invoke("compare", first, second, "--json").output)
    assert parsed["params"] == {"lr": {first: 0.1, second: 0.2}, "depth": {first: None, second: 3}}
    assert parsed["metrics"][first]["loss"] == {
        "last": 0.05,
        "last_step": 20,
        "lowest": 0.05,
        "lowest_step": 20,
        "highest": 1.0,
        "highest_step": 1,
    }
    assert parsed["metrics"][second]["extra"]["last"] == 1
    output = invoke("compare", first, second).output
    assert "Parameters that differ" in output
    assert "Lowest values" in output
    assert invoke("compare", first).exit_code == 2


@pytest.fixture
def rewound(tmp_path: Path) -> Path:
    """A run with two effective rows, one superseded row, and its repetition."""
    with pte.Run(tmp_path / "result") as run:
        for step in (1, 2):
            run.log_metrics({"loss": step / 2}, step, epoch=step, elapsed_time=step / 4)
        point = run.position(2)
        run.log_metrics({"loss": -1.0}, 3)
    run = pte.Run(tmp_path / "result")
    run.open(point)
    run.rewind()
    run.log_metrics({"loss": float("nan"), "acc": 1}, 3, log="other")
    run.close()
    return tmp_path / "result"


def test_export_writes_effective_history_in_every_format(rewound: Path, tmp_path: Path) -> None:
    written = invoke("export", rewound).output.splitlines()
    assert written[0] == "log,epoch,iteration,elapsed_time,time,loss,acc"
    rows = list(csv.DictReader(written))
    assert [(row["log"], row["iteration"], row["loss"], row["acc"]) for row in rows] == [
        ("log", "1", "0.5", ""),
        ("log", "2", "1.0", ""),
        ("other", "3", "nan", "1"),
    ]
    parsed = json.loads(invoke("export", rewound, "--format", "json").output, parse_constant=pytest.fail)
    assert [(row["iteration"], row["loss"]) for row in parsed] == [(1, 0.5), (2, 1.0), (3, None)]
    file = tmp_path / "table.parquet"
    assert invoke("export", rewound, "--format", "parquet", "-o", file).exit_code == 0
    table = pandas.read_parquet(file)
    assert list(table["iteration"]) == [1, 2, 3]
    assert list(table["loss"])[:2] == [0.5, 1.0]
    assert math.isnan(table["loss"][2])
    assert invoke("export", rewound, "--format", "parquet").exit_code == 2
    assert invoke("export", rewound, "--format", "xml").exit_code == 2


@pytest.mark.parametrize("file_format", ["csv", "json", "parquet"])
def test_export_metric_named_like_clock_column_gets_prefix(tmp_path: Path, file_format: str) -> None:
    values = {"log": 0.5, "epoch": 1.5, "iteration": 2.5, "elapsed_time": 3.5, "time": 4.5, "loss": 5.5}
    with pte.Run(tmp_path / "run") as run:
        run.log_metrics(values, 7, epoch=6)
    file = tmp_path / "table"
    assert invoke("export", tmp_path / "run", "--format", file_format, "-o", file).exit_code == 0
    (row,) = getattr(pandas, f"read_{file_format}")(file).to_dict("records")
    assert {key: row["loss" if key == "loss" else f"metrics/{key}"] for key in values} == values
    assert (row["log"], row["epoch"], row["iteration"]) == ("log", 6, 7)


def test_export_run_without_rows_is_empty_table(tmp_path: Path) -> None:
    with pte.Run(tmp_path, params={"a": 1}):
        pass
    assert invoke("export", tmp_path).output == "log,epoch,iteration,elapsed_time,time\n"
    assert json.loads(invoke("export", tmp_path, "--format", "json").output) == []
    assert invoke("show", tmp_path).exit_code == 0
