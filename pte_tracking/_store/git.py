"""State of the Git working tree that contains a program.

The configuration of a repository can name programs, which a repository from elsewhere could misuse. No command here
runs such a program: hooks, monitors, filters, external diffs, and transports are disabled.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from pte_tracking._platform.processes import BACKGROUND_OPTIONS, kill_group, wait_for_input
from pte_tracking._store.printable import escape_controls
from pte_tracking._store.secrets import mask_diff, mask_secrets

MAX_FILE_BYTES = 1_000_000
_CHUNK_BYTES = 1 << 16
_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",  # The index of the user is not rewritten.
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "",  # A partial clone would fetch missing files.
    "LC_ALL": "C",
}
_OPTIONS = (
    "--no-pager",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.quotePath=true"),
    *("-c", "core.bigFileThreshold=10m"),  # Comparing larger files line by line takes seconds and much memory.
)
_CONFIG = r"^(filter\..*\.(clean|process|required)|remote\..*\.url)$"
_STATUS = ("status", "--porcelain=v2", "-z", "--untracked-files=normal", "--no-renames", "--ignore-submodules=dirty")
_DIFF = (
    *("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-relative", "--ignore-submodules=dirty"),
    *("--submodule=short", "--src-prefix=a/", "--dst-prefix=b/"),
)


@dataclasses.dataclass
class GitState:
    """State of a working tree.

    Attributes:
        root: Top directory of the working tree. Empty if it could not be read.
        commit: Hash of the current commit. Empty if there is none.
        branch: Name of the branch. Empty if a commit is checked out without a branch.
        remote: URL of the remote repository without credentials. Empty if there is none.
        is_dirty: Whether tracked files differ from the commit. None if it is unknown.
        diff: Masked changes of the tracked files, at most 1 MB. Empty if there are none.
        untracked: Names of the untracked files and directories, one per line.
        is_truncated: Whether the diff was larger.
        failure: Reason for which facts are missing, for a message. Empty if there is none.
    """

    root: str
    commit: str = ""
    branch: str = ""
    remote: str = ""
    is_dirty: bool | None = None
    diff: bytes = b""
    untracked: bytes = b""
    is_truncated: bool = False
    failure: str = ""


def read_git(folder: str, run_directory: Path, seconds: float, *, has_diff: bool) -> GitState | None:
    """Read the state of the working tree that contains a directory.

    Args:
        folder: Directory.
        run_directory: Directory of the run, which is no untracked file of interest.
        seconds: Maximum time in seconds.
        has_diff: Whether to read the changes and the names of untracked files.

    Returns:
        The state. None if the directory is in no working tree, or Git is not installed.
    """
    real = os.path.realpath(folder)
    if "GIT_DIR" not in os.environ and not any(
        os.path.lexists(path / ".git") for path in (Path(real), *Path(real).parents)
    ):
        return None  # without starting Git
    git = _Git(folder, seconds)
    root = git.read_line("rev-parse", "--show-toplevel")
    if not root:
        failure = git.describe_failure()
        return GitState("", failure=failure) if failure else None
    state = GitState(root)
    state.commit = git.read_line("rev-parse", "--quiet", "--verify", "HEAD")
    state.branch = git.read_line("symbolic-ref", "--quiet", "--short", "HEAD")
    settings = [entry.partition("\n") for entry in _split(git.run("config", "-z", "--get-regexp", _CONFIG))]
    remotes = {name: value for name, _, value in settings if name.startswith("remote.")}
    url = remotes.get("remote.origin.url") or next(iter(remotes.values()), "")
    state.remote = remove_credentials(url)
    # The files are not read with a filter, which is a program.
    if git.disable(name for name, _, _ in settings if name.startswith("filter.")):
        _read_changes(git, state, run_directory, has_diff)
    state.failure = git.describe_timeout()
    return state


def remove_credentials(url: str) -> str:
    """Return the URL of a repository without user name, password, query, and fragment."""
    if "://" in url:
        try:
            parts = urlsplit(url)
            url = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
        except ValueError:  # not a URL
            pass
    return mask_secrets(url)


def _read_changes(git: _Git, state: GitState, run_directory: Path, has_diff: bool) -> None:
    paths = ["--", ":(top)"]
    if run_directory.is_relative_to(state.root) and run_directory != Path(state.root):
        paths.append(f":(top,exclude,literal){run_directory.relative_to(state.root).as_posix()}")
    status = git.run(*_STATUS, *paths)
    if status is None:
        return
    entries = _split(status)
    state.is_dirty = any(entry[:2] in ("1 ", "2 ", "u ") for entry in entries)
    if not has_diff:
        return
    names = [entry[2:] for entry in entries if entry.startswith("? ")]
    names = [
        escape_controls(name).replace("\n", "\\n")
        for name in names
        if not run_directory.is_relative_to(Path(state.root, name))
    ]
    state.untracked = "".join(f"{name}\n" for name in names).encode()
    if state.is_dirty:
        diff = git.run(*_DIFF, *(["HEAD"] if state.commit else ["--cached"]), *paths) or b""
        state.is_truncated = len(diff) > MAX_FILE_BYTES
        if state.is_truncated:
            note = b"# This diff is incomplete, because it is larger than %d bytes.\n" % MAX_FILE_BYTES
            diff = note + diff[: diff.rfind(b"\n", 0, MAX_FILE_BYTES) + 1]
        state.diff = mask_diff(diff)


class _Git:
    def __init__(self, folder: str, seconds: float) -> None:
        self._command = ["git", "-C", folder, *_OPTIONS]
        self._folder, self._seconds = folder, seconds
        self._deadline = time.monotonic() + seconds
        self._has_timed_out = False

    def disable(self, settings: Iterable[str]) -> bool:
        """Set settings to an empty value. Return False if the name of one cannot be passed to Git."""
        for name in settings:
            if "=" in name:
                return False
            self._command += ["-c", f"{name}="]
        return True

    def read_line(self, *arguments: str) -> str:
        return _decode(self.run(*arguments) or b"").rstrip("\n")

    def describe_timeout(self) -> str:
        """Return a message if a command did not end in time, otherwise an empty text."""
        return f"Git did not answer within {self._seconds:g} seconds" if self._has_timed_out else ""

    def describe_failure(self) -> str:
        """Return the reason for which Git did not find a working tree, empty if there is none."""
        if timeout := self.describe_timeout():
            return timeout
        if b"dubious ownership" in (self.run("rev-parse", has_errors=True) or b""):
            return (
                f"Git does not read {self._folder}, because another user owns it. "
                "Run: git config --global --add safe.directory DIRECTORY"
            )
        return ""

    def run(self, *arguments: str, has_errors: bool = False) -> bytes | None:
        """Return the output of a command, up to a limit. None if it failed or did not end in time.

        Args:
            arguments: The command.
            has_errors: Whether to return the messages of a command that failed.
        """
        if time.monotonic() >= self._deadline:
            self._has_timed_out = True
            return None
        try:
            process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if has_errors else subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
                bufsize=0,
                **BACKGROUND_OPTIONS,
            )
        except (OSError, ValueError):  # not installed, or the directory has a name that cannot be passed
            return None
        with process:
            try:
                output = self._read(process)
            finally:
                kill_group(process)
        is_cut = output is not None and len(output) > MAX_FILE_BYTES
        return output if is_cut or has_errors or process.returncode == 0 else None

    def _read(self, process: subprocess.Popen[bytes]) -> bytes | None:
        assert process.stdout is not None
        output = b""
        while len(output) <= MAX_FILE_BYTES:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0 or not wait_for_input(process.stdout.fileno(), remaining):
                self._has_timed_out = True
                return None
            chunk = process.stdout.read(_CHUNK_BYTES)
            if not chunk:
                process.wait(max(remaining, 0.1))
                break
            output += chunk
        return output


def _split(output: bytes | None) -> list[str]:
    return [_decode(entry) for entry in (output or b"").split(b"\0") if entry]


def _decode(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
