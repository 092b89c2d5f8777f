"""State of real Git repositories, some of which are hostile."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from pte_tracking._platform.processes import wait_for_input
from pte_tracking._store.git import MAX_FILE_BYTES, GitState, read_git, remove_credentials

ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(folder: Path, text: str = "one\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "train.py").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def read(folder: Path, *, seconds: float = 60, has_diff: bool = True) -> GitState:
    state = read_git(str(folder), folder / "result", seconds, has_diff=has_diff)
    assert state is not None
    return state


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def test_clean_repository_has_commit_and_branch(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    git(folder, "remote", "add", "origin", "https://user:hidden-token@example.org/team/code.git")
    state = read(folder)
    assert state.commit == git(folder, "rev-parse", "HEAD")
    assert (state.root, state.branch, state.is_dirty) == (str(folder), "main", False)
    assert state.remote == "https://example.org/team/code.git"
    assert (state.diff, state.untracked, state.failure) == (b"", b"", "")


def test_dirty_repository_has_a_patch_that_restores_the_files(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    git(folder, "config", "diff.noprefix", "true")
    (folder / "train.py").write_text("one\ntwo\n")
    (folder / "added.py").write_text("three\n")
    (folder / "sub").mkdir()
    git(folder, "add", "added.py")
    state = read(folder / "sub")
    assert state.is_dirty
    (tmp_path / "diff.txt").write_bytes(state.diff)
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(folder), str(copy))
    git(copy, "apply", str(tmp_path / "diff.txt"))
    assert (copy / "train.py").read_text() == "one\ntwo\n"
    assert (copy / "added.py").read_text() == "three\n"


def test_untracked_files_are_named_without_the_run_directory(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    (folder / "result").mkdir()
    (folder / "result/log").touch()
    (folder / "new.py").write_text("content")
    (folder / "line\nbreak").touch()
    Path(os.fsdecode(os.fsencode(folder) + b"/na\xefve")).touch()
    state = read(folder)
    assert state.untracked.decode().splitlines() == ["line\\nbreak", "na\\xefve", "new.py"]
    assert state.is_dirty is False
    assert b"content" not in state.diff


def test_changes_are_left_out_if_not_requested(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    (folder / "train.py").write_text("private\n")
    (folder / "new.py").touch()
    state = read(folder, has_diff=False)
    assert (state.is_dirty, state.diff, state.untracked) == (True, b"", b"")


def test_detached_head_has_commit_and_no_branch(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    git(folder, "checkout", "-q", "--detach")
    state = read(folder)
    assert (state.commit, state.branch) == (git(folder, "rev-parse", "HEAD"), "")


def test_repository_without_commits_has_branch_and_added_files(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "train.py").write_text("one\n")
    git(tmp_path, "add", "train.py")
    state = read(tmp_path)
    assert (state.commit, state.branch, state.is_dirty) == ("", "main", True)
    assert b"+one" in state.diff


def test_submodule_has_its_own_state_and_its_commit_is_in_the_diff_of_the_parent(tmp_path: Path) -> None:
    library = make_repository(tmp_path / "library")
    folder = make_repository(tmp_path / "code")
    git(folder, "submodule", "add", "-q", str(library), "library")
    git(folder, "commit", "-q", "-m", "submodule")
    assert read(folder / "library").root == str(folder / "library")
    (folder / "library/train.py").write_text("two\n")
    assert read(folder / "library").is_dirty
    git(folder / "library", "commit", "-qam", "second")
    state = read(folder)
    assert state.is_dirty
    assert f"+Subproject commit {git(folder / 'library', 'rev-parse', 'HEAD')}".encode() in state.diff


def test_worktree_has_its_own_branch(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    git(folder, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    state = read(tmp_path / "tree")
    assert (state.root, state.branch) == (str(tmp_path / "tree"), "other")


def test_directory_without_repository_has_no_state(tmp_path: Path) -> None:
    assert read_git(str(tmp_path), tmp_path, 60, has_diff=True) is None
    assert read_git(str(tmp_path / "missing"), tmp_path, 60, has_diff=True) is None


def test_git_is_not_started_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_repository(tmp_path / "code")
    write_program(tmp_path / "bin/git", f"touch {tmp_path}/started")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    read_git(str(tmp_path), tmp_path, 60, has_diff=True)
    assert not (tmp_path / "started").exists()
    for variable in (None, "GIT_DIR"):
        if variable:
            monkeypatch.setenv(variable, str(folder / ".git"))
        read_git(str(tmp_path if variable else folder / "."), tmp_path, 60, has_diff=True)
        assert (tmp_path / "started").exists()
        (tmp_path / "started").unlink()


def test_missing_git_yields_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_repository(tmp_path / "code")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_git(str(folder), folder, 60, has_diff=True) is None


def test_programs_in_the_configuration_are_not_run(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    program = tmp_path / "program"
    write_program(program, f"echo run >> {tmp_path}/evidence\ncat")
    git(folder, "config", "core.fsmonitor", str(program))
    git(folder, "config", "core.hooksPath", str(tmp_path / "hooks"))
    write_program(tmp_path / "hooks/post-index-change", f"echo run >> {tmp_path}/evidence")
    git(folder, "config", "core.pager", str(program))
    git(folder, "config", "diff.external", str(program))
    for driver in ("plain", "With.Dots and spaces"):
        git(folder, "config", f"diff.{driver}.textconv", str(program))
        git(folder, "config", f"diff.{driver}.command", str(program))
        git(folder, "config", f"filter.{driver}.clean", str(program))
        git(folder, "config", f"filter.{driver}.process", str(program))
        git(folder, "config", f"filter.{driver}.required", "true")
    (folder / ".gitattributes").write_text("*.py diff=plain filter=plain\n")
    (tmp_path / "evidence").unlink(missing_ok=True)  # of the commands of the test
    (folder / "train.py").write_text("two\n")
    state = read(folder)
    assert b"-one\n+two\n" in state.diff
    assert not (tmp_path / "evidence").exists()


def test_filter_whose_name_cannot_be_passed_hides_the_changes(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    write_program(tmp_path / "program", f"echo run >> {tmp_path}/evidence\ncat")
    git(folder, "config", "filter.a=b.clean", str(tmp_path / "program"))
    (folder / ".gitattributes").write_text("*.py filter=a=b\n")
    (folder / "train.py").write_text("two\n")
    state = read(folder)
    assert (state.is_dirty, state.diff) == (None, b"")
    assert len(state.commit) == 40
    assert not (tmp_path / "evidence").exists()


def test_partial_clone_fetches_nothing(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    (folder / "train.py").write_text("two\n")
    git(folder, "commit", "-qam", "second")
    blob = git(folder, "rev-parse", "HEAD:train.py")
    program = tmp_path / "program"
    write_program(program, f"echo run >> {tmp_path}/evidence")
    git(folder, "config", "core.repositoryFormatVersion", "1")
    git(folder, "config", "extensions.partialClone", "origin")
    git(folder, "config", "remote.origin.promisor", "true")
    git(folder, "config", "remote.origin.url", f"ext::{program}")
    git(folder, "config", "protocol.ext.allow", "always")
    (folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    (folder / "train.py").write_text("three\n")
    assert read(folder).is_dirty
    assert not (tmp_path / "evidence").exists()


def test_large_diff_is_truncated_at_the_end_of_a_line(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    for number in range(10):
        (folder / f"{number}.txt").write_text(f"line {number}\n" * 700_000)
    git(folder, "add", "-N", ".")
    state = read(folder)
    assert state.is_truncated
    assert len(state.diff) <= MAX_FILE_BYTES + 100
    assert state.diff.startswith(b"# This diff is incomplete")
    assert state.diff.endswith(b"+line 0\n")


def test_file_of_50_megabytes_and_binary_file_are_only_named(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    (folder / "large.txt").write_text("text\n" * 10_000_000)
    (folder / "binary").write_bytes(bytes(range(256)))
    git(folder, "add", "-N", ".")
    state = read(folder)
    assert not state.is_truncated
    assert b"/large.txt differ" in state.diff
    assert b"/binary differ" in state.diff
    assert len(state.diff) < 1000


def test_diff_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code")
    (folder / "train.py").write_bytes(b"name = 'na\xefve'\n")
    assert b"+name = 'na\xefve'\n" in read(folder).diff


def test_secrets_in_the_diff_are_masked_and_other_code_is_not(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "code", "key = 1\n")
    secrets = [
        'HF_TOKEN = "HIDDEN-1"',
        "os.environ['WANDB_API_KEY'] = 'HIDDEN-2'",
        "server = 'https://user:HIDDEN-3@example.org/'",
        "x = 'ghp_HIDDEN4HIDDEN4HIDDEN4HIDDEN4'",
        '"""-----BEGIN OPENSSH PRIVATE KEY-----',
        "HIDDEN-5",
        "-----END OPENSSH PRIVATE KEY-----",
        "password: HIDDEN-6",
    ]
    kept = ["tokenizer = load(path)", "sort_key = key", "best = max(keys)"]
    (folder / "train.py").write_text("\n".join([*secrets, *kept]))
    diff = read(folder).diff.decode()
    assert "HIDDEN" not in diff
    assert diff.count("***") >= 6
    for line in [*kept, '"""-----BEGIN OPENSSH PRIVATE KEY-----']:
        assert f"+{line}\n" in diff
    assert "-key = 1\n" in diff


def test_git_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    write_program(tmp_path / "bin/git", f"exec 3> {tmp_path}/fifo\necho started >&3\nsleep 600 &\nwait")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    assert read(tmp_path, seconds=2) == GitState("", failure="Git did not answer within 2 seconds")
    assert os.read(reader, 100) == b"started\n"
    assert wait_for_input(reader, 60)  # The last process that has the pipe open has ended.
    assert os.read(reader, 100) == b""
    os.close(reader)


def test_git_that_hangs_at_the_status_yields_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_repository(tmp_path / "code")
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    write_program(tmp_path / "bin/git", f'case "$*" in *" status "*) sleep 600;; *) exec {real} "$@";; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    state = read(folder, seconds=2)
    assert len(state.commit) == 40
    assert (state.is_dirty, state.failure) == (None, "Git did not answer within 2 seconds")


def test_repository_of_another_user_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_repository(tmp_path / "code")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    state = read(folder)
    assert (state.root, state.commit) == ("", "")
    assert "because another user owns it. Run: git config --global --add safe.directory" in state.failure


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://token@github.com/a/b.git", "https://github.com/a/b.git"),
        ("https://u:p@h:8443/a?private_token=x#y", "https://h:8443/a"),
        ("ssh://git@example.org:22/a/b", "ssh://example.org:22/a/b"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("/srv/code.git", "/srv/code.git"),
        ("https://u:p/q@example.org/a", "https://***@example.org/a"),
        ("https://[broken/a", "https://[broken/a"),
        ("", ""),
    ],
)
def test_remove_credentials_keeps_the_repository(url: str, expected: str) -> None:
    assert remove_credentials(url) == expected
