"""Journal of a run at a mirror, in parts.

The name of a part contains its first and last position in bytes. The last part is replaced by a longer one until it has
1 MiB, so that a run of weeks has few parts. The shorter part is deleted afterwards.
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

from pte_backends.mirror._store import Store
from pte_tracking.sinks import JOURNAL, SinkClosedError

_FOLDER = "journal"
_OWNER = "owner.json"
_PART_NAME = re.compile(r"(\d{15})-(\d{15})\.jsonl")
_FULL_PART_BYTES = 1 << 20
_MAX_PART_BYTES = 1 << 24


class JournalCopy:
    """Copy of the journal of a run.

    Args:
        store: Mirror.
        run_id: ID of the run.
        directory: Run directory.

    Raises:
        SinkClosedError: If the run continued in another directory, which copied its journal.
    """

    def __init__(self, store: Store, run_id: str, directory: Path) -> None:
        self._store = store
        self._owner_name = f"{run_id}/{_OWNER}"
        self._folder = f"{run_id}/{_FOLDER}"
        self._path = directory / JOURNAL
        self._parts = find_parts(store, run_id)
        while self._parts and not self._is_own(self._parts[-1]):
            if store.read(self._owner_name) != self._owner():
                raise SinkClosedError(
                    f"{store.url} contains a later part of this run, which another directory or machine recorded, so "
                    f"nothing of {directory} is copied. To continue from the mirror, move this directory and start "
                    f"again. To continue here, delete {store.url}/{run_id} and run: pte-tracking sync {directory}"
                )
            self._store.remove(self._name(self._parts.pop()))  # A loss of power took events that were copied.

    @property
    def end(self) -> int:
        """Number of journal bytes at the mirror."""
        return self._parts[-1][1] if self._parts else 0

    def claim(self) -> None:
        """Record that this directory copies the journal."""
        self._store.write(self._owner_name, self._owner())

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
                self._store.remove(self._name(self._parts.pop()))
            self._parts.append(part)

    def _owner(self) -> bytes:
        """Return what distinguishes this run directory from a copy of it, and from that of another machine."""
        parts = {"host": socket.gethostname(), "journal": str(self._path), "inode": self._path.stat().st_ino}
        return json.dumps(parts).encode()

    def _is_own(self, part: tuple[int, int]) -> bool:
        with open(self._path, "rb") as file:
            file.seek(part[0])
            return file.read(part[1] - part[0]) == self._store.read(self._name(part))

    def _name(self, part: tuple[int, int]) -> str:
        return f"{self._folder}/{_file_name(part)}"


def find_parts(store: Store, run_id: str) -> list[tuple[int, int]]:
    """Return the first and last positions of the parts that make up a journal, up to the first gap.

    Args:
        store: Mirror.
        run_id: ID of the run.
    """
    sizes = store.list_files(f"{run_id}/{_FOLDER}")
    spans = [(int(match[1]), int(match[2])) for name in sizes if (match := _PART_NAME.fullmatch(name))]
    intact = {span for span in spans if sizes[_file_name(span)] == span[1] - span[0] > 0}
    parts: list[tuple[int, int]] = []
    while following := [span for span in intact if span[0] == (parts[-1][1] if parts else 0)]:
        parts.append(max(following))
    return parts


def download_journal(store: Store, run_id: str, path: Path) -> None:
    """Write the complete lines of the journal at a mirror to a file.

    Args:
        store: Mirror.
        run_id: ID of the run.
        path: File to write.
    """
    with open(path, "w+b") as file:
        for part in find_parts(store, run_id):
            content = store.read(f"{run_id}/{_FOLDER}/{_file_name(part)}")
            if content is None or len(content) != part[1] - part[0]:
                break
            file.write(content)
        end = file.tell()
        while end and (file.seek(end - 1), file.read(1))[1] != b"\n":
            end -= 1
        file.truncate(end)


def _file_name(part: tuple[int, int]) -> str:
    return f"{part[0]:015d}-{part[1]:015d}.jsonl"
