"""Misspelled names of commands, runs, backends, and options."""

from __future__ import annotations

from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._store.similar import find_similar, suggest_or_list
from tests.cli.invocation import invoke


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("shows result", 2, "No such command 'shows'. Did you mean 'show'?"),
        ("show resultx", 1, "resultx: not a run directory (it does not exist). Did you mean 'result'?"),
        ("show result/run.json", 1, "result/run.json: not a run directory (it is a file). Did you mean 'result'?"),
        ("show .", 1, ".: not a run directory (it contains no run.json). Runs in this directory: 'result'"),
        ("show other/run", 1, "other/run: not a run directory (it does not exist). Runs nearby: 'result'"),
        ("list other", 1, "other: no such directory. Runs nearby: 'result'"),
        ("compare other", 1, "other: not a run directory (it does not exist). Runs nearby: 'result'"),
        ("sync --follow other", 1, "other: no such directory. Runs nearby: 'result'"),
        ("export resultx/log", 1, "(it does not exist). Did you mean 'result/log'?"),
        ("verify result/delivery", 1, "(it contains no run.json). Did you mean 'result'?"),
        ("verify .", 1, "Runs in this directory: 'result'"),
        ("export Result", 1, "Did you mean 'result'?"),
        ("sync resultx", 1, "resultx: not a run directory (it does not exist). Did you mean 'result'?"),
        ("sync --follow resultx", 1, "resultx: no such directory. Did you mean 'result'?"),
        ("sync result --to tensorboardx", 2, "Unknown sink 'tensorboardx'. Did you mean 'tensorboard'?"),
        (
            "sync result --to mlflow --option experimentx=x",
            2,
            "unknown option 'experimentx'. Did you mean 'experiment' or",
        ),
        ("list resultx", 1, "resultx: no such directory. Did you mean 'result'?"),
        ("import result/logx new", 2, "result/logx: no such file or directory. Did you mean 'result/log'?"),
        ("import result/log new --from jsonx", 2, "Unknown sink 'jsonx'. Did you mean 'json'?"),
        ("import result/log new --from json --option stepx=1", 2, "json has no option 'stepx' for reading."),
        ("convert resultx x.pt", 2, "but it does not exist. Did you mean 'result'?"),
    ],
)
def test_misspelled_name_is_reported_with_similar_name(
    words: str, code: int, message: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    result = invoke(*words.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


def test_runs_in_a_directory_are_named_in_numeric_order(tmp_path: Path) -> None:
    for number in (10, 9, 2, 1):
        with pte.Run(tmp_path / f"r_{number}", sinks=[]):
            pass
    message = invoke("show", tmp_path).stderr
    assert "Runs in this directory: " + ", ".join(f"'{tmp_path}/r_{number}'" for number in (1, 2, 9)) in message
    for words in (("list", tmp_path), ("list", tmp_path, "--sort", "name")):
        lines = invoke(*words).stdout.splitlines()[1:]
        assert [line.split()[0] for line in lines] == [f"{tmp_path}/r_{number}" for number in (1, 2, 9, 10)]


def test_show_directory_without_runs_names_none(tmp_path: Path) -> None:
    assert invoke("show", tmp_path).stderr == f"{tmp_path}: not a run directory (it contains no run.json)\n"


def test_list_without_directory_searches_the_current_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert invoke("list").stdout == invoke("list", ".").stdout
    assert "result" in invoke("list").stdout


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("val/los", ["val/loss"]),
        ("VAL/LOSS", ["val/loss"]),
        ("accuracy", ["train/accuracy", "val/accuracy/top1", "val/accuracy/top5"]),
        ("x", []),
        ("momentum", []),
    ],
)
def test_find_similar_returns_close_and_containing_names(name: str, similar: list[str]) -> None:
    known = ["train/accuracy", "val/accuracy/top1", "val/accuracy/top5", "val/loss", "lr_max"]
    assert find_similar(name, known) == similar


def test_suggest_or_list_without_similar_name_lists_names() -> None:
    assert suggest_or_list("q", ["b", "a"]) == " Names: a, b."
    assert suggest_or_list("q", map(str, range(11))) == " Names: 0, 1, 10, 2, 3, 4, 5, 6, 7, 8, ..."


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("list", ["DIR"]),
        ("show", ["RUN"]),
        ("compare", ["RUN"]),
        ("export", ["RUN"]),
        ("import", ["SOURCE", "RUN"]),
        ("verify", ["RUN"]),
        ("convert", ["SNAPSHOT", "FILE"]),
        ("sync", ["RUN"]),
    ],
)
def test_help_names_arguments_as_the_documentation(command: str, usage: list[str]) -> None:
    line = invoke(command, "--help").stdout.splitlines()[0]
    assert [word.strip("{}[].") for word in line.partition("[OPTIONS]")[2].split()] == usage
