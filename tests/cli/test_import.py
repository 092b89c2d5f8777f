"""``pte-tracking import`` of tables and logs, and its errors."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

import pte_tracking as pte
from pte_tracking import sinks
from pte_tracking._store.discovery import find_runs
from tests.cli.invocation import invoke
from tests.cli.test_import_tensorboard import import_run, points

TABLE = "epoch,iteration,elapsed_time,loss,note\n0.5,1,10,0.25,a\n1,2,30,nan,\n1.5,3,60,-inf,\n"


def write(path: Path, content: str) -> Path:
    path.write_text(content)
    os.utime(path, (2000.0, 2000.0))
    return path


def test_csv_rows_keep_values_epochs_and_times(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = import_run(write(tmp_path / "log.csv", TABLE), tmp_path / "run")
    stored = points(run)
    assert [(step, time) for _, step, _, time in stored] == [(1, 1950.0), (2, 1970.0), (3, 2000.0)]
    assert stored[0][2] == 0.25
    assert math.isnan(stored[1][2])
    assert stored[2][2] == -math.inf
    frame = run.frame()
    assert frame["epoch"].tolist() == [0.5, 1.0, 1.5]
    assert frame["elapsed_time"].tolist() == [10.0, 30.0, 60.0]
    assert "cells without a number were not imported, in the columns 'note' (1)" in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("step;loss\n3;1\n1;2\n", [("loss", 3, 1, 2000.0), ("loss", 1, 2, 2000.0)]),
        ("\ufeffStep\tWall time\tValue\n1\t1700000000.5\t2\n", [("Value", 1, 2, 1700000000.5)]),
        (",epoch,time\n0,1,0.25\n", [("time", 1, 0.25, 2000.0)]),
        ("step,a,b\n1,1,\n1,,2\n", [("a", 1, 1, 2000.0), ("b", 1, 2, 2000.0)]),
        ("iteration,a\n1,9007199254740993\n2", [("a", 1, 9007199254740993, 2000.0)]),
    ],
    ids=["semicolons and order", "TensorBoard download", "pandas index and durations", "sparse", "large and truncated"],
)
def test_csv_dialect_is_read(tmp_path: Path, content: str, expected: list[object]) -> None:
    assert points(import_run(write(tmp_path / "a.csv", content), tmp_path / "run")) == expected


def test_csv_own_export_is_read(tmp_path: Path, run: Path) -> None:
    invoke("export", run, "--output", tmp_path / "export.csv")
    imported = import_run(tmp_path / "export.csv", tmp_path / "run")
    (original,) = pte.open_runs(run)
    columns = ["iteration", "epoch", "time", "loss"]
    assert imported.frame()[columns].equals(original.frame()[columns])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "has no column with the step. Pass its name: --option step=COLUMN. Columns: a, b"),
        ("step,a\n0.5,2\n", "row 1: expected an integer in column 'step', got 0.5"),
        ("step,a\n1,2,3\n", "line 2: expected 2 cells, as in the first line, got 3"),
        ("step,a,a\n1,2,3\n", "expected different names of columns, got 'a' twice"),
        ("step,a\n", "contains no row"),
        ("", "contains no table"),
        ("step,a\n1,x\n", "contains no metrics"),
        ('step,a\n1,"' + "x" * 200_000, "not a CSV file: field larger than field limit"),
    ],
)
def test_csv_wrong_content_is_refused(tmp_path: Path, content: str, message: str) -> None:
    result = invoke("import", write(tmp_path / "a.csv", content), tmp_path / "run")
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("step,größe\n1,2\n".encode("latin-1"))
    assert "expected a CSV file in UTF-8" in invoke("import", tmp_path / "a.csv", tmp_path / "run").output


def test_step_option_selects_column(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "iteration,batch,loss\n1,10,0.5\n")
    run = import_run(file, tmp_path / "run", "--option", "step=batch")
    assert [(key, step) for key, step, _, _ in points(run)] == [("iteration", 10), ("loss", 10)]


def test_chainer_log_keeps_rows(tmp_path: Path) -> None:
    rows = [
        {"main/loss": 0.5, "validation/main/loss": math.nan, "epoch": 1, "iteration": 10, "elapsed_time": 4.0},
        {"main/loss": 0.25, "epoch": 2, "iteration": 20, "elapsed_time": 9.0},
    ]
    (tmp_path / "result").mkdir()
    write(tmp_path / "result" / "log", json.dumps(rows, indent=4))  # Chainer writes NaN, which is not JSON.
    run = import_run(tmp_path / "result", tmp_path / "run")
    assert [(key, step, at) for key, step, _, at in points(run)] == [
        ("main/loss", 10, 1995.0),
        ("validation/main/loss", 10, 1995.0),
        ("main/loss", 20, 2000.0),
    ]
    assert run.frame()["epoch"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("file_format", ["json", "json-lines"])
def test_log_of_pytorch_pfn_extras_is_read(tmp_path: Path, file_format: str) -> None:
    ppe = pytest.importorskip("pytorch_pfn_extras")
    import torch

    model = torch.nn.Linear(1, 1)
    manager = ppe.training.ExtensionsManager(
        {"main": model},
        {"main": torch.optim.SGD(model.parameters(), 0.1)},
        2,
        iters_per_epoch=2,
        out_dir=str(tmp_path / "result"),
        extensions=[
            ppe.training.extensions.LogReport(
                trigger=(1, "iteration"), format=file_format, append=file_format == "json-lines"
            )
        ],
    )
    for step in range(4):
        with manager.run_iteration():
            ppe.reporting.report({"loss": step / 4})
    run = import_run(tmp_path / "result" / "log", tmp_path / "run")
    assert [(key, step, value) for key, step, value, _ in points(run)] == [
        ("loss", step, (step - 1) / 4) for step in range(1, 5)
    ]


def test_json_lines_truncated_last_line_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "a.jsonl", '{"step": 1, "a": 1}\n{"step": 2, "a"')
    assert [step for _, step, _, _ in points(import_run(file, tmp_path / "run"))] == [1]
    assert "truncated in line 2" in caplog.text


@pytest.mark.parametrize("content", ["[1, 2]", "{", "[[", "text", "[" * 100_000])
def test_json_wrong_content_is_refused(tmp_path: Path, content: str) -> None:
    result = invoke("import", write(tmp_path / "a.json", content), tmp_path / "run")
    assert result.exit_code == 1
    assert "JSON" in result.output


def test_imported_run_works_with_all_commands(tmp_path: Path, run: Path) -> None:
    import_run(write(tmp_path / "a.csv", TABLE), tmp_path / "runs" / "imported", "--name", "old run")
    imported = tmp_path / "runs" / "imported"
    assert "old run" in invoke("list", tmp_path / "runs").output
    assert "FINISHED" in invoke("show", imported).output
    assert invoke("verify", imported).exit_code == 0
    assert invoke("compare", imported, run).exit_code == 0
    assert invoke("export", imported).output.splitlines()[1] == "log,0.5,1,10.0,1950.0,0.25"
    assert invoke("sync", imported, "--to", "csv").exit_code == 0
    # The backend writes the same table, without the column of texts.
    assert (imported / "log.csv").read_text().splitlines()[1] == "1,0.5,10.0,0.25"


def test_imported_run_is_archived_by_training(tmp_path: Path) -> None:
    imported = import_run(write(tmp_path / "a.csv", TABLE), tmp_path / "run")
    with pte.Run(tmp_path / "run") as run:
        run.log_metrics({"loss": 1.0}, 1)
    assert (tmp_path / "run" / "previous" / imported.id / "log").exists()
    assert {stored.id for stored in pte.open_runs(tmp_path / "run")} == {imported.id, run.id}


def test_directory_with_csv_file_is_read_if_selected(tmp_path: Path) -> None:
    (tmp_path / "version_0").mkdir()
    write(tmp_path / "version_0" / "metrics.csv", TABLE)
    run = import_run(tmp_path / "version_0", tmp_path / "run", "--from", "csv")
    assert [step for _, step, _, _ in points(run)] == [1, 2, 3]


@pytest.mark.parametrize("at", ["nan", "-1", "1e300"])
def test_impossible_time_is_replaced_by_that_of_earlier_row(tmp_path: Path, at: str) -> None:
    file = write(tmp_path / "a.csv", f"step,time,a\n1,1700000000,1\n2,{at},2\n")
    assert points(import_run(file, tmp_path / "run"))[1][2] == 2
    assert invoke("show", tmp_path / "run").exit_code == 0


def test_target_with_run_is_refused_and_unchanged(tmp_path: Path, run: Path) -> None:
    before = (run / "journal.jsonl").read_bytes()
    result = invoke("import", write(tmp_path / "a.csv", TABLE), run)
    assert result.exit_code == 1
    assert "contains a run. Choose another run directory" in result.output
    assert (run / "journal.jsonl").read_bytes() == before


def test_target_with_other_files_is_refused(tmp_path: Path) -> None:
    result = invoke("import", write(tmp_path / "a.csv", TABLE), tmp_path)
    assert result.exit_code == 1
    assert "is not empty" in result.output


def test_target_that_is_empty_is_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    import_run(write(tmp_path / "a.csv", TABLE), tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such file or directory"),
        (["unknown.txt"], "has no known format. Known sources: *.csv, log, *.json"),
        (["both"], "contains files of several formats. Select one with --from: json, tensorboard"),
        (["a.csv", "--from", "nothing"], "Unknown sink 'nothing'"),
        (["a.csv", "--from", "aim"], "--from aim: this backend cannot read runs. Backends that can: csv, json"),
        (["a.csv", "--option", "step"], "--option: expected KEY=VALUE, got 'step'"),
        (["a.csv", "--option", "column=a"], "csv has no option 'column' for reading. Options: step."),
        (["a.csv", "--option", "step=a", "--option", "step=b"], "--option: 'step' is given twice"),
        (["result"], "is a run already"),
    ],
)
def test_wrong_usage_is_refused(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both").mkdir()
    for name in ("a.csv", "both/events.out.tfevents.1", "both/log", "both/a.csv", "unknown.txt"):
        write(tmp_path / name, TABLE)
    result = invoke("import", arguments[0], "target", *arguments[1:])
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "target").exists()


def test_missing_client_library_is_named_with_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks.get_sink("tensorboard"), "requires", "missing_library")
    file = write(tmp_path / "events.out.tfevents.1", "")
    result = invoke("import", file, tmp_path / "run")
    assert result.exit_code == 2
    assert "Run: pip install 'pte-tracking[tensorboard]'" in result.output


@pytest.mark.parametrize("error", [ValueError("row 3: expected a number, got 'a'"), LookupError("no run 7")])
def test_reader_error_without_source_names_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(source: str, directory: Path) -> NoReturn:
        raise error

    monkeypatch.setattr(sinks.get_sink("csv"), "read_run", fail)
    file = write(tmp_path / "a.csv", TABLE)
    result = invoke("import", file, tmp_path / "run")
    assert (result.exit_code, result.stderr) == (1, f"{file}: {error.args[0]}\n")


@pytest.mark.slow
def test_killed_import_leaves_no_run_and_can_be_repeated(tmp_path: Path) -> None:
    rows = "".join(f"{step},{step / 7}\n" for step in range(60_000))
    file = write(tmp_path / "a.csv", f"step,loss\n{rows}")
    journal = tmp_path / "runs" / ".run.import" / "journal.jsonl"
    command = [sys.executable, "-m", "pte_tracking._cli", "import", str(file), str(tmp_path / "runs" / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        busy = invoke("import", file, tmp_path / "runs" / "run")
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    assert "is in use by process" in busy.output
    assert list(find_runs(tmp_path)) == []
    assert not (tmp_path / "runs" / "run").exists()
    run = import_run(file, tmp_path / "runs" / "run")
    assert len(run.frame()) == 60_000
    assert os.listdir(tmp_path / "runs") == ["run"]
