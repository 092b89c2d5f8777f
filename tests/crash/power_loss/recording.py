"""Recording of the system calls by which a program changes a directory."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_CHANGES = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,sendfile,copy_file_range,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,fsync,fdatasync"
)
_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?")
_PATH = re.compile(r'"((?:\\x[0-9a-f]{2})*)"|(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>')


class SystemCall(NamedTuple):
    """Successful system call.

    Attributes:
        name: Name of the call.
        start: Number of calls that had returned when this call started.
        strings: Content of its string arguments, such as paths and written bytes.
        descriptors: Number and path of its file descriptors, the one that it returns last.
        arguments: Text of its arguments.
        result: Its return value.
    """

    name: str
    start: int
    strings: list[bytes]
    descriptors: list[tuple[str, str]]
    arguments: str
    result: int


def find_missing_software() -> str | None:
    """Return why system calls cannot be recorded on this machine, or None."""
    try:
        done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "strace is not installed. Run: apt-get install strace"
    return f"strace is not permitted: {done.stderr.strip()}" if done.returncode else None


def record(command: Sequence[str], trace: Path) -> list[SystemCall]:
    """Run a program and return its system calls that change files, in the order in which they returned.

    Args:
        command: The program and its arguments.
        trace: File for the output of strace.

    Raises:
        RuntimeError: If the program fails.
    """
    strace = ["strace", "-f", "-y", "-xx", "-s", str(1 << 24), "--seccomp-bpf", "-e", f"trace={_CHANGES}"]
    done = subprocess.run(
        [*strace, "-o", str(trace), *command], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError(f"The recorded program failed:\n{done.stderr[-3000:]}")
    return list(_parse(trace.read_text().splitlines()))


def _parse(lines: Sequence[str]) -> Iterator[SystemCall]:
    count = 0
    started: dict[str, tuple[str, int]] = {}
    for line in lines:
        match = _LINE.match(line)
        assert match is not None, line
        thread, text = match.groups()
        start = count
        if text.endswith("<unfinished ...>"):
            started[thread] = text.removesuffix("<unfinished ...>"), count
            continue
        if resumed := _RESUMED.match(text):
            beginning, start = started.pop(thread)
            text = beginning + resumed[2]
        if (match := _CALL.match(text)) and int(match[3]) >= 0:
            name, arguments, result, path = match.groups()
            strings, descriptors = [], []
            for string, descriptor, descriptor_path in _PATH.findall(arguments):
                if descriptor:
                    descriptors.append((descriptor, _decode(descriptor_path).decode()))
                else:
                    strings.append(_decode(string))
            if path is not None:
                descriptors.append((result, _decode(path).decode()))
            count += 1
            yield SystemCall(name, start, strings, descriptors, arguments, int(result))


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
