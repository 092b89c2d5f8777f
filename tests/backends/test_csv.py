"""CSV files: readable while they are written, exact, and rebuilt after any damage."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

import pte_tracking as pte
from pte_backends.csv import CsvSink
from pte_tracking._store import events
from pte_tracking.testing import RecordedRun
from tests.cli.invocation import invoke


@pytest.fixture
def run(tmp_path: Path) -> RecordedRun:
    return RecordedRun(tmp_path / "run", CsvSink())


def read(run: RecordedRun, name: str = "log.csv") -> str:
    return (run.directory / name).read_text()


def test_columns_start_with_progress_and_numbers_keep_all_digits(run: RecordedRun) -> None:
    run.log(1, {"loss": 0.1 + 0.2, "count": 2**63 - 1, "iteration": 7}, epoch=0.5)
    run.log(2, {"loss": math.nan, "lr": -math.inf})
    run.end()
    assert read(run) == (
        "iteration,epoch,elapsed_time,loss,count,iteration/metric,lr\n"
        "1,0.5,,0.30000000000000004,9223372036854775807,7,\n"
        "2,,,nan,,,-inf\n"
    )


def test_keys_are_quoted_and_header_is_one_line(run: RecordedRun) -> None:
    run.log(1, {'say "x", y': 1, "two\nlines": 2, "=1+1": 3})
    run.end()
    assert read(run).splitlines()[0] == 'iteration,epoch,elapsed_time,"say ""x"", y",two_lines,=1+1'


def test_file_is_complete_whenever_it_is_read(run: RecordedRun) -> None:
    run.log(1, {"key0": 1})
    run.deliver()
    is_written = threading.Event()
    tables: list[pandas.DataFrame] = []

    def read_until_written() -> None:
        while not is_written.is_set():
            tables.append(pandas.read_csv(run.directory / "log.csv"))

    reader = threading.Thread(target=read_until_written)
    reader.start()
    for step in range(2, 150):
        run.log(step, {"key0": step, f"key{step // 3}": step})
        run.deliver()
    is_written.set()
    reader.join(60)
    assert len({len(table) for table in tables}) > 5
    assert len({len(table.columns) for table in tables}) > 5
    for table in tables:
        assert table["iteration"].tolist() == table["key0"].tolist() == list(range(1, len(table) + 1))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"loss", b"LOSS"))


def shift_rows(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n1,", b"\n1.0,"))


@pytest.mark.parametrize("damage", [truncate, Path.unlink, change_header, shift_rows])
@pytest.mark.parametrize("is_open", [True, False], ids=["open", "closed"])
def test_damaged_file_is_rebuilt(run: RecordedRun, damage: Callable[[Path], None], is_open: bool) -> None:
    for step in range(1, 50):
        run.log(step, {"loss": step / 7})
    run.deliver()
    expected = read(run)
    if not is_open:
        run.crash()
    damage(run.directory / "log.csv")
    run.log(50, {"loss": 50 / 7})
    run.end()
    assert read(run) == expected + f"50,,,{50 / 7}\n"


def test_logs_have_separate_files(run: RecordedRun) -> None:
    run.journal.append(events.Metrics, 1, {"a": 1.0})
    run.journal.append(events.Metrics, 1, {"b": 2.0}, None, None, "val/log")
    run.end()
    assert read(run).endswith("a\n1,,,1.0\n")
    assert read(run, "val/log.csv").endswith("b\n1,,,2.0\n")


def test_other_file_of_that_name_is_kept_until_renamed(run: RecordedRun) -> None:
    path = run.directory / "log.csv"
    path.write_text("my,data\n1,2\n")
    run.log(1, {"a": 1.0})
    run.deliver()
    assert path.read_text() == "my,data\n1,2\n"
    result = invoke("show", run.directory)
    assert "log.csv exists and is not the table of a log" in " ".join(result.output.split())
    path.rename(run.directory / "mine.csv")
    run.crash()
    result = invoke("sync", run.directory)
    assert result.exit_code == 0, result.output
    assert read(run).endswith("1,,,1.0\n")


def test_new_run_archives_files_of_all_logs_and_keeps_those_of_others(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("val.csv", "mine.csv"):
        (tmp_path / "run" / name).write_text(f"iteration,{name}\n")
    with pte.Run(tmp_path / "run", sinks=["csv"], close_timeout=60) as first:
        for log in ("log", "val", "deep/log"):
            first.log_metrics({"a": 1.0}, 1, log=log)
    with pte.Run(tmp_path / "run", sinks=["csv"], close_timeout=60):
        pass
    archived = tmp_path / "run" / "previous" / first.id
    tables = ["deep/log.csv", "log.csv", "val.csv"]
    assert sorted(path.relative_to(archived).as_posix() for path in archived.rglob("*.csv")) == tables
    assert [path.name for path in (tmp_path / "run").glob("*.csv")] == ["mine.csv"]
    assert (archived.parent / "other-files-1" / "val.csv").read_text() == "iteration,val.csv\n"


def test_files_of_sink_that_sync_added_are_archived(tmp_path: Path) -> None:
    with pte.Run(tmp_path / "run", sinks=["json"]) as run:
        run.log_metrics({"a": 1.0}, 1, log="val")
    assert invoke("sync", tmp_path / "run", "--to", "csv").exit_code == 0
    pte.Run(tmp_path / "run", sinks=["json"]).open()
    assert (tmp_path / "run" / "previous" / run.id / "val.csv").is_file()


def test_rewind_to_start_leaves_header(run: RecordedRun) -> None:
    start = run.journal.end
    run.log(1, {"loss": 1.0})
    run.deliver()
    run.journal.rewind(start, 0)
    run.end()
    assert read(run) == "iteration,epoch,elapsed_time\n"


KILLED_AFTER_NEW_METRIC = """
import os, signal, sys
from pathlib import Path
from pte_backends.csv import CsvSink
from pte_tracking.testing import RecordedRun

run = RecordedRun(Path(sys.argv[1]), CsvSink())
run.log(1, {"a": 1.0})
run.deliver()
run.log(2, {"a": 2.0, "b": 2.0})
run.deliver(save_cursor=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_kill_between_new_header_and_cursor_leaves_one_row_per_step(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AFTER_NEW_METRIC, str(tmp_path / "run")]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    result = invoke("sync", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run/log.csv").read_text() == "iteration,epoch,elapsed_time,a,b\n1,,,1.0,\n2,,,2.0,2.0\n"


@pytest.mark.slow
def test_training_with_log_report_writes_same_rows_as_json_log(tmp_path: Path) -> None:
    out = tmp_path / "result"
    report = pte.extensions.LogReport(trigger=(1, "epoch"))
    with pte.ExtensionsManager({}, 3, [report], out_dir=out, iters_per_epoch=2, sinks=["json", "csv"]) as manager:
        for _ in range(6):
            with manager.run_iteration():
                pte.reporter.report({"loss": manager.iteration / 7})
    rows = pandas.read_json(out / "log", precise_float=True)
    table = pandas.read_csv(out / "log.csv")
    pandas.testing.assert_frame_equal(table[rows.columns], rows, check_dtype=False, check_exact=True)
    assert table.columns.tolist() == ["iteration", "epoch", "elapsed_time", "loss"]
    with pte.Run(out, sinks=["csv"]) as run:
        run.log_metrics({"loss": 0.0}, 1)
    (archived,) = (out / "previous").glob("*/log.csv")
    pandas.testing.assert_frame_equal(pandas.read_csv(archived), table)


@pytest.mark.parametrize("save_cursor", [True, False])
def test_events_of_a_failed_write_are_delivered_by_the_next_connection(
    run: RecordedRun, monkeypatch: pytest.MonkeyPatch, save_cursor: bool
) -> None:
    run.log(1, {"loss": 0.5})
    run.deliver()
    run.log(2, {"loss": 0.25})
    with monkeypatch.context() as patch:
        patch.setattr("pte_backends.csv._sink.CsvConnection.write", fail)
        with pytest.raises(OSError, match="unavailable"):
            run.deliver(save_cursor=save_cursor)
    run.deliver()
    run.end()
    assert read(run).splitlines()[1:] == ["1,,,0.5", "2,,,0.25"]


def fail(*_: object) -> None:
    raise OSError("unavailable")
