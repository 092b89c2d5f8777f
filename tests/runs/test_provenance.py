"""Provenance of runs: the events, the files, and the messages of several sessions."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._platform.gpus import nvidia_driver
from pte_tracking._runs import provenance_recorder
from pte_tracking._store import packages, provenance
from pte_tracking._store.events import Artifact, Provenance
from pte_tracking._store.journal_reader import find_events, read, read_effective
from pte_tracking._store.layout import JOURNAL
from tests.cli.invocation import invoke
from tests.store.test_git import git, make_repository, write_program


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working tree that contains the program."""
    monkeypatch.delenv("PTE_TRACKING_PROVENANCE")
    folder = make_repository(tmp_path / "code")
    monkeypatch.setattr(sys, "argv", [str(folder / "train.py"), "--api-key", "HIDDEN"])
    monkeypatch.chdir(tmp_path)
    return folder


def run_session(directory: Path, *, resume: bool = True) -> Provenance:
    with pte.Run(directory, resume=resume) as run:
        run.log_metrics({"loss": 1.0}, 1)
    return list(find_events(directory / JOURNAL, Provenance))[-1][0]


def test_run_records_code_software_and_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("POD_NAME", "train-0")
    monkeypatch.setenv("POD_NAMESPACE", "vision")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    torch = types.SimpleNamespace(__version__="2.6.0", version=types.SimpleNamespace(cuda=None, hip=None))
    monkeypatch.setitem(sys.modules, "torch", torch)
    values = run_session(folder / "result").values
    assert values["git_commit"] == git(folder, "rev-parse", "HEAD")
    assert (values["git_branch"], values["git_dirty"]) == ("main", "false")
    assert (values["python"], values["torch"]) == (".".join(map(str, sys.version_info[:3])), "2.6.0")
    assert values["command"].endswith("train.py --api-key ***")
    assert values["slurm_job_id"] + values["slurm_array_task_id"] + values["slurm_restarts"] == "471131"
    assert (values["kubernetes_pod"], values["kubernetes_namespace"]) == ("train-0", "vision")
    assert (values["torchelastic_restarts"], values["starts"]) == ("2", "1")
    context = json.loads((folder / "result/run.json").read_text())["context"]
    assert context["git_commit"] == values["git_commit"]
    (stored,) = pte.open_runs(folder)
    assert stored.provenance == values


def test_run_stores_changes_and_packages_as_artifacts(folder: Path) -> None:
    (folder / "train.py").write_text("one\nAPI_KEY = 'HIDDEN'\n")
    (folder / "new.py").touch()
    event = run_session(folder / "result")
    assert event.files == {
        name: f"provenance/start_1/{name}" for name in ("requirements.txt", "diff.txt", "untracked.txt")
    }
    assert "+API_KEY = ***" in (folder / "result" / event.files["diff.txt"]).read_text()
    assert (folder / "result" / event.files["untracked.txt"]).read_text() == "new.py\n"
    lines = (folder / "result" / event.files["requirements.txt"]).read_text().splitlines()
    assert f"pytest=={pytest.__version__}" in lines
    assert lines == sorted(lines, key=lambda line: line.split("==")[0].split(" ")[0].lower())
    artifacts = [event for event, _ in find_events(folder / "result" / JOURNAL, Artifact)]
    assert {artifact.path for artifact in artifacts} == set(event.files.values())
    assert {artifact.artifact_path for artifact in artifacts} == {"provenance/start_1"}


def test_resume_writes_only_changed_files_and_reports_another_commit(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "train.py").write_text("two\n")
    first = run_session(folder / "result")
    second = run_session(folder / "result")
    assert second.files == first.files
    assert not caplog.records
    git(folder, "commit", "-qam", "second")
    (folder / "train.py").write_text("three\n")
    with caplog.at_level(logging.WARNING):
        third = run_session(folder / "result")
    before, now = first.values["git_commit"], third.values["git_commit"]
    assert f"with other code: commit {now[:10]} (main) with changes, before that {before[:10]} (main)" in caplog.text
    assert third.files["requirements.txt"] == "provenance/start_1/requirements.txt"
    assert third.files["diff.txt"] == "provenance/start_3/diff.txt"
    assert [event.values["starts"] for event in (first, second, third)] == ["1", "2", "3"]


def test_rewind_does_not_count_as_start(folder: Path) -> None:
    with pte.Run(folder / "result") as run:
        run.log_metrics({"loss": 1.0}, 1)
        position = run.position(1)
        run.log_metrics({"loss": 2.0}, 2)
    resumed = pte.Run(folder / "result")
    resumed.open(position)
    resumed.log_params({"logged": "before the rewind"})
    resumed.rewind()
    resumed.log_metrics({"loss": 3.0}, 2)
    resumed.close()
    kinds = [type(event) for event, _ in read_effective(folder / "result" / JOURNAL)]
    assert kinds.count(Provenance) in (1, 2)  # The first session may be recorded after the position.
    *_, (last, _) = find_events(folder / "result" / JOURNAL, Provenance)
    assert last.values["starts"] == "2"


def test_new_run_archives_the_files_of_the_earlier_one(folder: Path) -> None:
    first = run_session(folder / "result")
    run_id = json.loads((folder / "result/run.json").read_text())["id"]
    run_session(folder / "result", resume=False)
    assert (folder / "result/previous" / run_id / first.files["requirements.txt"]).exists()
    assert (folder / "result/provenance/start_1/requirements.txt").exists()


def test_fork_has_its_own_provenance(folder: Path) -> None:
    run_session(folder / "parent")
    with pte.Run(folder / "parent", resume=True) as run:
        position = run.position(1)
    child = pte.Run(folder / "child")
    child.open(position, is_fork=True)
    child.log_metrics({"loss": 1.0}, 2)
    child.close()
    (event,) = [event for event, _ in find_events(folder / "child" / JOURNAL, Provenance)]
    artifacts = [event.path for event, _ in find_events(folder / "child" / JOURNAL, Artifact)]
    assert event.values["starts"] == "1"
    assert artifacts == list(event.files.values())


def test_value_logged_after_the_end_records_nothing_again(folder: Path) -> None:
    run = pte.Run(folder / "result")
    run.log_metrics({"loss": 1.0}, 1)
    run.close()
    run.log_metrics({"loss": 1.0}, 2)
    run.close()
    assert len(list(find_events(folder / "result" / JOURNAL, Provenance))) == 1


@pytest.mark.parametrize(("level", "kinds"), [("off", []), ("no-diff", ["requirements.txt"])])
def test_variable_leaves_out_the_changes_or_everything(
    folder: Path, monkeypatch: pytest.MonkeyPatch, level: str, kinds: list[str]
) -> None:
    monkeypatch.setenv("PTE_TRACKING_PROVENANCE", level)
    (folder / "train.py").write_text("private\n")
    with pte.Run(folder / "result") as run:
        run.log_metrics({"loss": 1.0}, 1)
    found = list(find_events(folder / "result" / JOURNAL, Provenance))
    assert [name for event, _ in found for name in event.files] == kinds
    assert [event.values["git_dirty"] for event, _ in found] == ["true"] * len(kinds)
    assert b"private" not in b"".join(path.read_bytes() for path in (folder / "result").rglob("*") if path.is_file())


def test_unknown_value_of_the_variable_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_PROVENANCE", "of")
    with pytest.raises(ValueError, match=r"expected 'full', 'no-diff', or 'off', got 'of'"):
        pte.Run(folder / "result")
    assert not (folder / "result").exists()


def test_git_that_hangs_delays_neither_rows_nor_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_program(folder / "bin/git", "sleep 600")
    monkeypatch.setenv("PATH", f"{folder}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(provenance_recorder, "_END_SECONDS", 0.2)
    event = run_session(folder / "result")
    assert event.values["failure"].startswith("Git or the file system did not answer")
    assert "git_commit" not in event.values
    assert event.values["python"]
    assert "the provenance is incomplete" in caplog.text
    kinds = [type(event).__name__ for event, _ in read(folder / "result" / JOURNAL)]
    assert kinds == ["RunStarted", "Metrics", "Provenance", "RunEnded"]


def test_failure_is_logged_and_the_run_finishes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> str:
        raise ValueError("broken metadata")

    monkeypatch.setattr(provenance_recorder, "list_packages", fail)
    assert "python" in run_session(folder / "result").values
    assert "the provenance is incomplete: ValueError: broken metadata" in caplog.text
    assert pte.open_runs(folder)[0].status == "FINISHED"


def test_show_and_compare_display_code_and_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    first = run_session(folder / "result")
    (folder / "train.py").write_text("two\n")
    git(folder, "commit", "-qam", "second")
    (folder / "train.py").write_text("three\n")
    second = run_session(folder / "other")
    output = invoke("show", str(folder / "other")).stdout
    assert f"Code: {second.values['git_commit'][:10]} on main with uncommitted changes, {folder}" in output.replace(
        "\n", ""
    )
    assert "Job: Slurm job 4711\n" in output
    assert "Starts" not in output
    run_session(folder / "other")
    assert "Starts: 2, including every resume\n" in invoke("show", str(folder / "other")).stdout
    shown = json.loads(invoke("show", "--json", str(folder / "result")).stdout)
    assert shown["provenance"] == first.values
    compared = json.loads(invoke("compare", "--json", str(folder / "result"), str(folder / "other")).stdout)
    assert list(compared["provenance"]) == ["git_commit", "git_dirty"]


def test_packages_name_their_origin_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(name: str, origin: object) -> None:
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\nVersion: 2.0\n")
        if origin is not None:
            (info / "direct_url.json").write_text(origin if isinstance(origin, str) else json.dumps(origin))

    url = "https://user:HIDDEN@example.org/a.git"
    add("Plain", None)
    add("vcs", {"url": url, "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}})
    add("editable", {"url": "file:///src/editable", "dir_info": {"editable": True}})
    add("broken", "{")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert packages.list_packages().splitlines() == [
        "broken==1.0",
        "editable==1.0  # file:///src/editable (editable)",
        "Plain==1.0",
        "vcs @ git+https://example.org/a.git@c0ffee",
    ]


def test_gpus_are_read_from_the_files_of_the_driver(tmp_path: Path) -> None:
    assert nvidia_driver(tmp_path) == ("", [])
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (a@b)\nGCC version: 12.2\n"
    )
    for number in range(2):
        (tmp_path / "gpus" / f"0000:0{number}:00.0").mkdir(parents=True)
        (tmp_path / "gpus" / f"0000:0{number}:00.0/information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t 1\n")
    assert nvidia_driver(tmp_path) == ("550.54.15", ["NVIDIA H200", "NVIDIA H200"])


def test_deleted_working_directory_is_no_source_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert provenance.source_folders() == []


TRAINING = """
import os, signal, sys, time
import pte_tracking as pte
with pte.Run(sys.argv[1], resume=True) as run:
    run.log_metrics({"loss": 1.0}, 1)
    for _ in range(2000):
        if sys.argv[2] == "at once" or '"kind":"provenance"' in open(run.directory / "journal.jsonl").read():
            break
        time.sleep(0.05)
    if sys.argv[2] != "finish":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_killed_run_resumes_on_another_commit_and_keeps_both(folder: Path) -> None:
    (folder / "train.py").write_text(TRAINING)

    def train(when: str) -> str:
        command = [sys.executable, str(folder / "train.py"), str(folder / "result"), when]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == (0 if when == "finish" else -signal.SIGKILL), done.stderr
        return done.stderr

    train("at once")
    train("with provenance")
    git(folder, "commit", "-qam", "second")
    assert "the run continues with other code" in train("finish")
    *_, before, after = [event for event, _ in find_events(folder / "result" / JOURNAL, Provenance)]
    assert (before.values["git_dirty"], after.values["git_dirty"]) == ("true", "false")
    assert before.values["git_commit"] != after.values["git_commit"] == git(folder, "rev-parse", "HEAD")
    assert (before.values["starts"], after.values["starts"]) == ("2", "3")
    assert TRAINING.splitlines()[1] in (folder / "result" / before.files["diff.txt"]).read_text()
    assert "diff.txt" not in after.files
