"""Tests of the commands verify and sync, and of runs that no command can read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_backends.csv import CsvSink
from pte_tracking._delivery.cursor import CursorStore
from pte_tracking._runs import verification
from pte_tracking._store import journal_reader
from pte_tracking.sinks import Connection, RunView
from tests.cli.invocation import invoke
from tests.users import unprivileged_user


def test_show_and_sync_accept_running_run(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_metrics({"loss": 1.0}, 7)
        assert json.loads(invoke("show", tmp_path, "--json").output)["status"] == "RUNNING"
        assert invoke("sync", tmp_path).exit_code == 0


def test_verify_damaged_journal_line_is_reported(run: Path) -> None:
    assert invoke("verify", run).exit_code == 0
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"#" + lines[3][1:], *lines[4:]]))
    result = invoke("verify", run)
    assert result.exit_code == 1
    assert "line 4 is not an event" in result.output


def test_verify_checkpoint_pruned_during_check_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pte.Run(tmp_path) as run:
        (tmp_path / "snapshot").write_bytes(b"state")
        run.log_checkpoint("snapshot", 1, "0" * 64, 5)
        (tmp_path / "snapshot").unlink()  # a training logs the removal a moment later
        later = threading.Timer(0.3, run.remove_checkpoint, ["snapshot", 1])
        later.start()
        result = invoke("verify", tmp_path)
        later.join()
        assert (result.exit_code, result.stderr) == (0, "")
        run.log_checkpoint("snapshot", 2, "0" * 64, 5)
        monkeypatch.setattr(verification, "_REPLACEMENT_SECONDS", 0.2)
        assert "file not found" in error_line("verify", tmp_path)


@pytest.mark.parametrize("command", ["list", "show", "verify", "sync"])
@pytest.mark.parametrize(
    "content", [None, "", "{}", "[1]", '{"format": 99}', "\0\0", '{"id": 1, "name": "x", "start_time": 0}']
)
def test_command_foreign_directory_exits_with_1_and_names_directory(
    tmp_path: Path, command: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    result = invoke(command, tmp_path)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert str(tmp_path) in result.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "nowhere"], "Known sinks: "),
        (["--option", "a=b"], "after a --to"),
        (["--to", "json", "--option", "colour=red"], "Options of this sink"),
        (["--follow", "--json"], "cannot be combined with --json"),
    ],
)
def test_sync_usage_error_exits_with_2(run: Path, arguments: list[str], reason: str) -> None:
    result = invoke("sync", run, *arguments)
    assert result.exit_code == 2
    assert reason in result.output


@pytest.mark.slow
def test_sync_json_lists_pending_events(run: Path) -> None:
    import mlflow  # noqa: F401  # a cold import may take longer than the timeout below

    result = invoke("sync", run, "--json")
    assert (result.exit_code, json.loads(result.output)) == (0, [])
    # Port 9 (discard) is closed.
    unreachable = ["--to", "mlflow", "--option", "tracking_uri=http://127.0.0.1:9"]
    result = invoke("sync", run, "--json", "--timeout", "5", *unreachable)
    assert result.exit_code == 1
    (backlog_entry,) = json.loads(result.stdout)
    assert (backlog_entry["key"], backlog_entry["events"]) == ("mlflow", 23)
    assert "Connection" in backlog_entry["reason"]


def test_sync_json_output_of_backend_is_printed_to_stderr(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_sink = CsvSink.open

    def open_and_print(sink: CsvSink, view: RunView, state: Mapping[str, Any]) -> Connection:
        print("printed by a client library")
        return open_sink(sink, view, state)

    monkeypatch.setattr(CsvSink, "open", open_and_print)
    result = invoke("sync", run, "--to", "csv", "--json")
    assert (result.exit_code, result.stdout, "printed by a client library" in result.stderr) == (0, "[]\n", True)


@pytest.mark.slow
def test_sync_to_new_sink_delivers_whole_run(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second call has no pending events
        result = invoke("sync", run, "--to", "tensorboard", "--timeout", "30")
        assert (result.exit_code, "all events delivered" in result.output) == (0, True)
    events = EventAccumulator(str(run))
    events.Reload()
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("loss")] == [
        (step, round(1 / step, 6)) for step in range(1, 21)
    ]


@pytest.mark.parametrize("name", ["list", "show", "compare"])
def test_command_unicode_key_in_ascii_terminal_succeeds(run: Path, name: str) -> None:
    with pte.Run(run, resume=True) as more:
        more.log_metrics({"损失": 1.0}, 21)
    result = subprocess.run(
        [sys.executable, "-m", "pte_tracking._cli", name, *map(str, [run] if name != "compare" else [run, run])],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"loss" in result.stdout


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show"], ["export"], ["compare", "--json"]])
def test_command_full_output_device_fails_with_one_line(run: Path, arguments: list[str]) -> None:
    runs = [run] if arguments[0] != "compare" else [run, run]
    result = subprocess.run(
        ["bash", "-c", '"$@" > /dev/full', "", sys.executable, "-m", "pte_tracking._cli", *arguments, *map(str, runs)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "No space left on device" in line


def damaged_contents(data: bytes) -> dict[str, bytes | None]:
    """Return variants of a damaged file by kind of damage."""
    half = len(data) // 2
    return {
        "lost": None,
        "empty": b"",
        "cut": data[:half],
        "flipped": data[:half] + bytes([data[half] ^ 0xFF]) + data[half + 1 :],
        "foreign": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "text": b"null",
        "list": b"[]",
    }


@pytest.mark.parametrize("name", ["run.json", "journal.jsonl", "checkpoints.json", "delivery/json.json", "log"])
def test_command_damaged_file_exits_without_traceback(run: Path, tmp_path: Path, name: str) -> None:
    path = run / name
    if not path.exists():
        path.write_bytes(b'{"format": 1}')
    original = path.read_bytes()
    for damage, data in damaged_contents(original).items():
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        for command in ("list", "show", "verify", "export", "sync"):
            result = invoke(command, run)
            assert result.exit_code in (0, 1), (damage, command, result.output)
            assert result.exception is None or isinstance(result.exception, SystemExit), (
                damage,
                command,
                result.exception,
            )
        result = invoke("compare", run, run)
        assert result.exit_code in (0, 1), damage
        assert isinstance(result.exception, SystemExit | None), (damage, result.exception)
        path.write_bytes(original)
    assert invoke("verify", run).exit_code == 0


READING_COMMANDS = ("list", "show", "verify", "export", "compare", "sync")


def error_line(command: str, run: Path) -> str:
    """Run a command that must fail and return its only line on standard error."""
    result = invoke(command, *([run] if command != "compare" else [run, run]))
    assert result.exit_code == 1, (command, result.output, result.exception)
    assert isinstance(result.exception, SystemExit), (command, result.exception)
    (line,) = result.stderr.splitlines()
    assert result.stdout == ""
    return line


def replace_with_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_with_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_with_self_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize("command", READING_COMMANDS)
@pytest.mark.parametrize(
    ("name", "damage_file", "reason"),
    [
        ("run.json", lambda path: path.write_bytes(path.read_bytes()[:100]), "damaged or not a run manifest"),
        ("run.json", lambda path: path.write_text(path.read_text().replace('"format": 2', '"format": 7')), "format 7"),
        ("run.json", lambda path: path.write_text('{"a":' * 10_000), "damaged or not a run manifest"),
        (
            "run.json",
            lambda path: path.write_text(re.sub('(start_time": )', r"\1 99999", path.read_text())),
            "start_time",
        ),
        ("run.json", replace_with_fifo, "damaged or not a run manifest"),
        ("journal.jsonl", lambda path: path.write_bytes(path.read_bytes()[:20]), "contains no event"),
        ("journal.jsonl", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" * 1000), "contains no event"),
        ("journal.jsonl", Path.unlink, "no file journal.jsonl"),
        ("journal.jsonl", replace_with_fifo, "no file journal.jsonl"),
        ("journal.jsonl", replace_with_directory, "no file journal.jsonl"),
        ("journal.jsonl", replace_with_self_link, "journal.jsonl"),
    ],
)
def test_command_unreadable_run_prints_one_line(
    run: Path, command: str, name: str, damage_file: Callable[[Path], object], reason: str
) -> None:
    damage_file(run / name)
    line = error_line(command, run)
    assert reason in line
    assert str(run) in line


def test_command_symlink_loop_prints_one_line(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "up").symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to("itself")
    assert "no run found in this directory or below" in error_line("list", tmp_path)
    for command in READING_COMMANDS:
        assert "Too many levels of symbolic links" in error_line(command, tmp_path / "itself")


@pytest.mark.parametrize("command", READING_COMMANDS)
@pytest.mark.parametrize("name", [".", "run.json", "journal.jsonl"])
def test_command_permission_denied_prints_one_line(
    run: Path, name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    run.parent.chmod(0o755)
    path = run / name
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with unprivileged_user():
            # A run of root is refused by sync before it is read.
            is_refused = command == "sync" and os.geteuid() != os.stat(".").st_uid
            expected = "owned by user ID 0, not by you" if is_refused else "Permission denied"
            assert expected in error_line(command, Path(run.name))
    finally:
        path.chmod(mode)


def test_list_damaged_run_still_shows_other_runs(run: Path) -> None:
    (run.parent / "broken").mkdir()
    (run.parent / "broken" / "run.json").write_text("{")
    result = invoke("list", run.parent)
    assert result.exit_code == 1
    assert "FINISHED" in result.stdout
    (line,) = result.stderr.splitlines()
    assert "damaged" in line


def test_verify_lost_journal_end_is_reported(run: Path) -> None:
    journal = run / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:10]))
    assert invoke("show", run).exit_code == 0
    assert "end of the journal is lost" in error_line("verify", run)


def test_command_event_kind_of_newer_version_warns_once_and_is_no_damage(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open(run / "journal.jsonl", "a") as journal:
        journal.writelines(f'{{"kind":"hologram","seq":{seq},"time":1.0}}\n' for seq in (24, 25))
    for command in ("list", "show", "export", "verify"):
        caplog.clear()
        journal_reader.warn_newer.cache_clear()
        assert invoke(command, run).exit_code == 0
        (record,) = caplog.records
        assert "'hologram', which a newer version of pte-tracking has written" in record.message


def test_verify_journal_read_by_newer_version_reports_no_lost_end(run: Path) -> None:
    journal = run / "journal.jsonl"
    with open(journal, "a") as file:
        file.write('{"kind":"hologram","seq":24,"time":1.0}\n')
    cursors = CursorStore(run, "json")
    cursor = cursors.load()
    cursor.position, cursor.seq = journal.stat().st_size, 24
    cursors.save(cursor)
    assert invoke("verify", run).exit_code == 0
    assert invoke("sync", run).exit_code == 0
    assert cursors.load().seq == 24


def test_verify_kind_with_flipped_bit_is_damage(run: Path) -> None:
    journal = run / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'{"kind":"metrics","seq":5', b'{"kind":"metsics","seq":5'))
    assert "line 5 is not an event" in error_line("verify", run)


@pytest.mark.parametrize(
    "fields",
    [
        f'"kind":"metrics","step":{2**64},"values":{{"loss":1}}',
        '"kind":"metrics","step":21,"values":{"loss":1%s}' % ("0" * 400),
        '"kind":"rewound","to_seq":1,"to_position":1%s,"step":0' % ("0" * 30),
        '"kind":"metrics","step":21,"values":{"loss":1},"more":' + "[" * 10_000 + "]" * 10_000,
    ],
    ids=["step", "value", "position", "nested"],
)
def test_command_invalid_event_fields_are_skipped(run: Path, fields: str) -> None:
    with open(run / "journal.jsonl", "a") as journal:
        journal.write(f'{{"seq":24,"time":1.0,{fields}}}\n')
    for command in ("list", "show", "export", "compare", "sync"):
        result = invoke(command, *([run] if command != "compare" else [run, run]))
        assert (result.exit_code, result.exception) == (0, None), command
    assert "line 24 is not an event" in error_line("verify", run)


def test_bash_completion_offers_commands_and_options(tmp_path: Path) -> None:
    script = """
        source <(pte-tracking --show-completion)
        complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pte_tracking_completion pte-tracking; }
        complete_words pte-tracking sh; echo "${COMPREPLY[@]}"
        complete_words pte-tracking show --j; echo "${COMPREPLY[@]}"
    """
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # The shell must run a script: the command detects the shell from its parent processes.
    (tmp_path / "complete.sh").write_text(script)
    result = subprocess.run(["bash", "complete.sh"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["show", "--json"], result.stderr
