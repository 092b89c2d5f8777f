"""File of a JSON log."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec

from pte_tracking.sinks import Metrics, check_unchanged, open_owned, read_at, replace_file, sync_directory, write_at

_CLOSING = b"\n]\n"
_EMPTY = b"[]\n"
_CHUNK = 1 << 20
_CHECK_SECONDS = 1.0  # between two checks of the path, which take longer than a row
_encode = msgspec.json.Encoder().encode


class LogFile:
    """JSON log: ``[``, one row per line, separated by commas, and ``]``.

    Rows that were flushed are never overwritten. If some of them are removed, a new file replaces the old one, so that
    a loss of power leaves one of the two.

    Args:
        directory: Run directory.
        name: File name of the log.

    Attributes:
        size: Number of bytes up to the end of the last row; 0 for an empty log.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._path = directory / name
        self._replacement = self._path.with_name(f".{self._path.name}.tmp")
        self._fd = open_owned(self._path, directory)
        #: Path of the open file.
        self._open_path = self._path
        self._next_check_time = 0.0
        self.size = 0

    def append(self, row: Metrics) -> None:
        """Append a row.

        Raises:
            OSError: If the disk is full or fails, or another program has changed the file.
        """
        # A write after the end of a truncated file would leave zeros. lseek() is the fastest call that returns the end.
        if (now := time.monotonic()) > self._next_check_time or os.lseek(self._fd, 0, os.SEEK_END) < self.size:
            check_unchanged(self._fd, self._open_path, self.size)
            self._next_check_time = now + _CHECK_SECONDS
        values: dict[str, Any] = {**row.values}
        if row.epoch is not None:
            values["epoch"] = row.epoch
        values["iteration"] = row.step
        if row.elapsed_time is not None:
            values["elapsed_time"] = row.elapsed_time
        # The encoder writes non-finite numbers as null.
        data = b"".join((b",\n" if self.size else b"[\n", _encode(values), _CLOSING))
        written = 0
        try:
            written = write_at(self._fd, data, self.size)
        finally:
            if written < len(data):
                self._write_end()
        if written < len(data):
            raise OSError(f"Only {written} of {len(data)} bytes were written.")
        self.size += len(data) - len(_CLOSING)

    def truncate(self, size: int) -> bool:
        """Keep the first ``size`` bytes, and return whether the file contains them."""
        is_intact = os.fstat(self._fd).st_size >= size and (not size or read_at(self._fd, 1, 0) == b"[")
        if is_intact:
            self.size = size
            self._write_end()
        return is_intact

    def drop_rows(self, rows: int) -> None:
        """Remove the last rows.

        Raises:
            OSError: If the disk is full or fails.
        """
        end = start = self.size
        while rows and start:
            start = max(end - _CHUNK, 0)
            chunk = read_at(self._fd, end - start, start)
            # A row contains no newline, so each row starts after one.
            while rows and (newline := chunk.rfind(b"\n")) >= 0:
                chunk, rows = chunk[:newline], rows - 1
            end = start if rows else start + len(chunk)
        size = max(end - len(b","), 0)
        self.start_replacement(size if size > len(b"[") else 0)
        self.finish_replacement()

    def start_replacement(self, size: int) -> None:
        """Write to a new file from now on, which begins with the first ``size`` bytes.

        Raises:
            OSError: If the disk is full or fails.
        """
        new = open_owned(self._replacement, self._directory)
        try:
            os.ftruncate(new, 0)
            position = 0
            while position < size and (chunk := read_at(self._fd, min(_CHUNK, size - position), position)):
                position += write_at(new, chunk, position)
        except BaseException:
            os.close(new)
            raise
        os.close(self._fd)
        self._fd, self._open_path, self.size = new, self._replacement, size
        self._write_end()

    def finish_replacement(self) -> None:
        """Replace the log by the new file.

        Raises:
            OSError: If the disk fails.
        """
        self.close()  # Windows renames no open file
        replace_file(self._replacement, self._path)
        sync_directory(self._path.parent)
        self._fd, self._open_path = open_owned(self._path, self._directory), self._path

    def flush(self) -> None:
        """Flush the rows to disk, unless the file is closed.

        Raises:
            OSError: If the disk fails, or another program has changed the file. The next connection builds it again.
        """
        if self._fd < 0:
            return
        if self._open_path == self._path:
            check_unchanged(self._fd, self._path, self.size)
        os.fsync(self._fd)

    def close(self) -> None:
        """Flush and close the file, unless it is closed.

        Raises:
            OSError: If the disk fails.
        """
        if self._fd < 0:  # A replacement has failed.
            return
        try:
            self.flush()
        finally:
            os.close(self._fd)
            self._fd = -1

    def _write_end(self) -> None:
        # Overwrite existing bytes before truncating. A full disk may have no other space.
        end = _CLOSING if self.size else _EMPTY
        write_at(self._fd, end, self.size)
        os.ftruncate(self._fd, self.size + len(end))
