"""Copy of a growing file at a mirror, in parts.

The name of a part contains its first and last position in bytes. The last part is replaced by a longer one until it has
1 MiB, so a run of weeks has few parts. The shorter part is deleted afterwards.
"""

from __future__ import annotations

import re
from pathlib import Path

from pte_backends.mirror._store import Store

_PART_NAME = re.compile(r"(\d{15})-(\d{15})\.jsonl")
_FULL_PART_BYTES = 1 << 20
_MAX_PART_BYTES = 1 << 24


class PartedCopy:
    """Copy of a file to which lines are appended.

    Args:
        store: Mirror.
        folder: Folder of the parts at the mirror.
        path: The local file.
    """

    def __init__(self, store: Store, folder: str, path: Path) -> None:
        self._store = store
        self._folder = folder
        self._path = path
        self._parts = find_parts(store, folder)

    @property
    def end(self) -> int:
        """Number of bytes at the mirror."""
        return self._parts[-1][1] if self._parts else 0

    def is_last_part_equal(self) -> bool:
        """Return whether the local file contains the last part, or whether there is no part."""
        if not self._parts:
            return True
        start, end = self._parts[-1]
        with open(self._path, "rb") as file:
            file.seek(start)
            return file.read(end - start) == self._store.read(self._name(self._parts[-1]))

    def remove_last_part(self) -> None:
        """Delete the last part."""
        self._store.remove(self._name(self._parts.pop()))

    def update(self) -> None:
        """Copy all complete lines that are not at the mirror."""
        while True:
            is_grown = bool(self._parts) and self._parts[-1][1] - self._parts[-1][0] < _FULL_PART_BYTES
            start = self._parts[-1][0] if is_grown else self.end
            with open(self._path, "rb") as file:
                file.seek(start)
                content = file.read(_MAX_PART_BYTES)
            if len(content) < _MAX_PART_BYTES:
                content = content[: content.rfind(b"\n") + 1]
            part = (start, start + len(content))
            if part[1] <= self.end:
                return
            self._store.write(self._name(part), content)
            if is_grown:
                self.remove_last_part()
            self._parts.append(part)

    def _name(self, part: tuple[int, int]) -> str:
        return f"{self._folder}/{_file_name(part)}"


def find_parts(store: Store, folder: str) -> list[tuple[int, int]]:
    """Return the first and last positions of the parts that make up a file, up to the first gap.

    Args:
        store: Mirror.
        folder: Folder of the parts.
    """
    sizes = store.list_files(folder)
    spans = [(int(match[1]), int(match[2])) for name in sizes if (match := _PART_NAME.fullmatch(name))]
    intact = {span for span in spans if sizes[_file_name(span)] == span[1] - span[0] > 0}
    parts: list[tuple[int, int]] = []
    while following := [span for span in intact if span[0] == (parts[-1][1] if parts else 0)]:
        parts.append(max(following))
    return parts


def download_parts(store: Store, folder: str, path: Path) -> None:
    """Write the complete lines of a file at a mirror to a local file.

    Args:
        store: Mirror.
        folder: Folder of the parts.
        path: File to write.
    """
    with open(path, "w+b") as file:
        for part in find_parts(store, folder):
            content = store.read(f"{folder}/{_file_name(part)}")
            if content is None or len(content) != part[1] - part[0]:
                break
            file.write(content)
        end = file.tell()
        while end and (file.seek(end - 1), file.read(1))[1] != b"\n":
            end -= 1
        file.truncate(end)


def _file_name(part: tuple[int, int]) -> str:
    return f"{part[0]:015d}-{part[1]:015d}.jsonl"
