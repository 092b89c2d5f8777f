"""The command line: what it says, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import pte_tracking as pte
from pte_tracking.cli import app


def call(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with pte.Run(tmp_path / "result", params={"lr": 0.1}) as run:
        for step in range(1, 21):
            run.log_metrics({"loss": 1 / step, "odd": float("nan")}, step, epoch=step / 10)
    return tmp_path / "result"


def test_list_names_every_run_with_its_status_and_last_step(run: Path) -> None:
    with pte.Run(run, sinks=[]) as second:
        second.log_metrics({"loss": 1.0}, 3)
    done = call("list", run.parent)
    assert done.exit_code == 0
    lines = [line.split() for line in done.output.splitlines() if "FINISHED" in line]
    assert sorted(line[line.index("FINISHED") + 1] for line in lines) == ["20", "3"]


def test_show_gives_params_last_rows_and_sinks(run: Path) -> None:
    output = call("show", run).output
    for expected in ("FINISHED", "lr", "0.1", "loss", "0.05", "sinks: json"):
        assert expected in output


def test_json_is_strict_and_holds_the_same(run: Path) -> None:
    shown = json.loads(call("show", run, "--json").output, parse_constant=pytest.fail)
    assert shown["step"] == 20
    assert shown["rows"][-1] == {"epoch": 2.0, "iteration": 20, "loss": 0.05, "odd": None}
    (listed,) = json.loads(call("list", run, "--json").output)
    assert listed == shown


def test_a_run_that_is_training_can_be_looked_at(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"loss": 1.0}, 7)
        assert json.loads(call("show", tmp_path, "--json").output)["status"] == "RUNNING"
        assert call("sync", tmp_path).exit_code == 0


def test_verify_finds_damage_in_the_journal(run: Path) -> None:
    assert call("verify", run).exit_code == 0
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"#" + lines[3][1:], *lines[4:]]))
    done = call("verify", run)
    assert done.exit_code == 1
    assert "line 4 is no event" in done.output


@pytest.mark.parametrize("command", ["list", "show", "verify", "sync"])
@pytest.mark.parametrize(
    "content", [None, "", "{}", "[1]", '{"format": 99}', "\0\0", '{"id": 1, "name": "x", "start_time": 0}']
)
def test_a_folder_that_is_no_run_of_ours_gets_one_line_and_a_non_zero_exit(
    tmp_path: Path, command: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    done = call(command, tmp_path)
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert str(tmp_path) in done.output


def test_a_run_without_a_journal_gets_one_line(run: Path) -> None:
    (run / "journal.jsonl").unlink()
    for command in ("show", "verify", "sync"):
        done = call(command, run)
        assert (done.exit_code, isinstance(done.exception, SystemExit)) == (1, True), command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "nowhere"], "installed are json, mlflow"),
        (["--option", "a=b"], "behind a --to"),
        (["--to", "json", "--option", "colour=red"], "its options are"),
    ],
)
def test_wrong_use_of_sync_is_told_and_exits_with_2(run: Path, words: list[str], said: str) -> None:
    done = call("sync", run, *words)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.slow
def test_sync_adds_a_backend_that_was_not_there_when_the_run_was_trained(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second time there is nothing to do
        done = call("sync", run, "--to", "tensorboard", "--timeout", "30")
        assert (done.exit_code, "everything" in done.output) == (0, True)
    events = EventAccumulator(str(run))
    events.Reload()
    assert [(one.step, round(one.value, 6)) for one in events.Scalars("loss")] == [
        (step, round(1 / step, 6)) for step in range(1, 21)
    ]
