"""Model of a disk that loses power: which changes of a directory are durable, and which states may remain.

The model follows POSIX: `fsync` of a file makes its data durable, `fsync` of a directory its entries. Other changes may
be lost independently of each other. A write that is not durable may also be torn or leave zeros. A rename is atomic.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from recording import SystemCall

ROOT = 0
#: Content of a directory by relative path: bytes of a file, or None for a directory.
Tree = dict[str, bytes | None]


class Data(NamedTuple):
    """Bytes that are written to a file at an offset."""

    file: int
    offset: int
    content: bytes


class Size(NamedTuple):
    """New size of a file."""

    file: int
    size: int


class Entries(NamedTuple):
    """Changes of directory entries that happen together: directory, name, and the new file or None."""

    changes: tuple[tuple[int, str, int | None], ...]


Change = Data | Size | Entries


class Flush(NamedTuple):
    """Flush of a file or directory. It covers the changes before ``start``."""

    file: int
    start: int


class Recording(NamedTuple):
    """Changes of a directory in their order, and the flushes.

    Attributes:
        changes: The changes.
        flushes: The flushes, each with the number of changes before its return.
    """

    changes: list[Change]
    flushes: list[tuple[int, Flush]]

    def durable_changes(self, count: int) -> set[int]:
        """Return the indices of the changes that a loss of power after ``count`` changes does not affect."""
        flushed = [flush for end, flush in self.flushes if end <= count]
        return {
            index
            for index, change in enumerate(self.changes[:count])
            if all(any(flush.file == file and index < flush.start for flush in flushed) for file in _files(change))
        }


def _files(change: Change) -> set[int]:
    return {change[0] for change in change.changes} if isinstance(change, Entries) else {change.file}


def build_tree(changes: Iterable[Change]) -> Tree:
    """Return the directory that consists of some changes."""
    contents: dict[int, bytearray] = {}
    directories: dict[int, dict[str, int]] = {ROOT: {}}
    for change in changes:
        if isinstance(change, Entries):
            for directory, name, file in change.changes:
                if file is None:
                    directories.setdefault(directory, {}).pop(name, None)
                else:
                    directories.setdefault(directory, {})[name] = file
        elif isinstance(change, Size):
            content = contents.setdefault(change.file, bytearray())
            content[change.size :] = bytes(max(change.size - len(content), 0))
        else:
            content = contents.setdefault(change.file, bytearray())
            content.extend(bytes(max(change.offset - len(content), 0)))
            content[change.offset : change.offset + len(change.content)] = change.content
    tree: Tree = {}

    def add(directory: int, prefix: str) -> None:
        for name, file in directories.get(directory, {}).items():
            if file < 0:
                tree[prefix + name] = None
                add(file, f"{prefix}{name}/")
            else:
                tree[prefix + name] = bytes(contents.get(file, b""))

    add(ROOT, "")
    return tree


def write_tree(tree: Tree, directory: Path) -> None:
    """Create the files of a tree in an empty directory."""
    for name, content in sorted(tree.items()):
        if content is None:
            (directory / name).mkdir()
        else:
            (directory / name).write_bytes(content)


def read_tree(directory: Path) -> Tree:
    """Return the content of a directory."""
    return {
        path.relative_to(directory).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


class Recorder:
    """Translation of system calls into changes of one directory.

    Files have positive numbers. Directories have negative numbers, except the root.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._numbers: dict[str, int] = {"": ROOT}
        self._sizes: dict[int, int] = {}
        #: Offset of the next write through a descriptor. None if it appends.
        self._offsets: dict[tuple[str, int], int | None] = {}
        self._next = 1
        self._changes: list[Change] = []
        self._flushes: list[tuple[int, Flush]] = []

    def translate(self, calls: Sequence[SystemCall]) -> Recording:
        """Return the changes of the directory.

        Raises:
            ValueError: If a call changes the directory in a way that is not modeled.
        """
        #: Number of changes after each call.
        counts = [len(self._changes)]
        for call in calls:
            self._add(call, counts[call.start])
            counts.append(len(self._changes))
        return Recording(self._changes, self._flushes)

    def _relative(self, path: str) -> str | None:
        if path == self._root:
            return ""
        return path.removeprefix(f"{self._root}/") if path.startswith(f"{self._root}/") else None

    def _paths(self, call: SystemCall) -> list[str | None]:
        """Return the paths that a call names, relative to the root. None for paths elsewhere."""
        bases = [path for descriptor, path in call.descriptors]
        strings = [os.fsdecode(string) for string in call.strings]
        if not call.name.endswith(("at", "at2")):
            return [self._relative(os.path.normpath(string)) for string in strings]
        return [
            self._relative(os.path.normpath(os.path.join(base, string)))
            for base, string in zip(bases, strings, strict=False)
        ]

    def _descriptor(self, call: SystemCall, index: int = 0) -> tuple[str, int] | None:
        """Return the number of a descriptor and of its file. None if the file is elsewhere or was deleted."""
        descriptor, path = call.descriptors[index]
        relative = self._relative(path)
        return None if relative is None or relative not in self._numbers else (descriptor, self._numbers[relative])

    def _add(self, call: SystemCall, start: int) -> None:
        handlers: dict[str, Callable[[SystemCall], None]] = {
            "open": self._open,
            "creat": self._open,
            "write": self._append,
            "writev": self._append,
            "pwrite64": self._write_at,
            "truncate": self._truncate,
            "sendfile": self._copy,
            "copy_file_range": self._copy,
            "rename": self._rename,
            "unlink": self._unlink,
            "rmdir": self._unlink,
            "mkdir": self._mkdir,
        }
        if call.name in ("fsync", "fdatasync"):
            if opened := self._descriptor(call):
                self._flushes.append((len(self._changes), Flush(opened[1], start)))
        elif call.name == "ftruncate":
            if opened := self._descriptor(call):
                self._resize(opened[1], int(call.arguments.rpartition(", ")[2]))
        elif handler := handlers.get(re.sub(r"at2?$", "", call.name)):
            handler(call)
        elif any(path is not None for path in self._paths(call)) or any(
            self._relative(path) is not None for _, path in call.descriptors
        ):
            raise ValueError(f"{call.name}({call.arguments[:200]}) is not modeled")

    def _open(self, call: SystemCall) -> None:
        relative = self._relative(call.descriptors[-1][1])
        if relative is None:
            return
        if relative not in self._numbers:
            if "O_CREAT" not in call.arguments and call.name != "creat":
                raise ValueError(f"{relative} was created in a way that is not modeled")
            self._create(relative)
        file = self._numbers[relative]
        if "O_TRUNC" in call.arguments and self._sizes[file]:
            self._resize(file, 0)
        self._offsets[str(call.result), file] = None if "O_APPEND" in call.arguments else 0

    def _append(self, call: SystemCall) -> None:
        opened = self._descriptor(call)
        if opened is None:
            return
        content = b"".join(call.strings)[: call.result]
        offset = self._offsets[opened]
        self._write(opened[1], self._sizes[opened[1]] if offset is None else offset, content)
        if offset is not None:
            self._offsets[opened] = offset + len(content)

    def _write_at(self, call: SystemCall) -> None:
        if opened := self._descriptor(call):
            self._write(opened[1], int(call.arguments.rpartition(", ")[2]), call.strings[0][: call.result])

    def _copy(self, call: SystemCall) -> None:
        """Copy between files. The content of the source is that of its changes so far."""
        is_sendfile = call.name == "sendfile"
        target, source = (
            self._descriptor(call, 0 if is_sendfile else 1),
            self._descriptor(call, 1 if is_sendfile else 0),
        )
        if target is None:
            return
        if source is None:
            raise ValueError("A copy from outside of the directory is not modeled")
        offset = self._offsets[target] or 0
        content = build_tree([Entries(((ROOT, "copy", source[1]),)), *self._changes])["copy"]
        assert content is not None
        self._write(target[1], offset, content[offset : offset + call.result])
        self._offsets[target] = offset + call.result

    def _truncate(self, call: SystemCall) -> None:
        relative = self._paths(call)[0]
        if relative is not None:
            self._resize(self._numbers[relative], int(call.arguments.rpartition(", ")[2]))

    def _mkdir(self, call: SystemCall) -> None:
        for relative in self._paths(call):
            if relative:
                self._create(relative, is_directory=True)

    def _unlink(self, call: SystemCall) -> None:
        for relative in self._paths(call):
            if relative:
                del self._numbers[relative]
                self._change_entries((relative, None))

    def _rename(self, call: SystemCall) -> None:
        source, target = self._paths(call)
        if source is None and target is None:
            return
        if source is None or target is None:
            raise ValueError("A rename from or to another directory is not modeled")
        file = self._numbers[source]
        moved = {path: number for path, number in self._numbers.items() if f"{path}/".startswith(f"{source}/")}
        self._change_entries((source, None), (target, file))
        for path, number in moved.items():
            del self._numbers[path]
            self._numbers[target + path.removeprefix(source)] = number

    def _create(self, relative: str, is_directory: bool = False) -> int:
        file = -self._next if is_directory else self._next
        self._next += 1
        self._sizes[file] = 0
        self._change_entries((relative, file))
        self._numbers[relative] = file
        return file

    def _change_entries(self, *changes: tuple[str, int | None]) -> None:
        self._changes.append(
            Entries(
                tuple((self._numbers[os.path.dirname(path)], os.path.basename(path), file) for path, file in changes)
            )
        )

    def _write(self, file: int, offset: int, content: bytes) -> None:
        if content:
            self._changes.append(Data(file, offset, content))
            self._sizes[file] = max(self._sizes[file], offset + len(content))

    def _resize(self, file: int, size: int) -> None:
        self._changes.append(Size(file, size))
        self._sizes[file] = size
