"""CSV file of one log, which is readable after every write."""

from __future__ import annotations

import csv
import io
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pte_tracking.sinks import Metrics, SinkClosedError, open_owned, read_at, replace_file, sync_directory, write_at

STEP_COLUMN = "iteration"
_FIRST_COLUMNS = (STEP_COLUMN, "epoch", "elapsed_time")
_CHUNK_BYTES = 1 << 16


class Table:
    """CSV file of one log.

    Rows are appended with one write. A file with other columns replaces the old one, so readers see either of the
    two. No file stays open, so a file that was removed or replaced is noticed by the next write.

    Args:
        directory: Run directory.
        log: Name of the log.
        size: Size of the file up to the end of its last row, in bytes. 0 for a new file.
        header_crc: CRC-32 of the header.

    Attributes:
        size: Size of the file up to the end of its last row, in bytes.
        header_crc: CRC-32 of the header.
    """

    def __init__(self, directory: Path, log: str, size: int = 0, header_crc: int = 0) -> None:
        self._directory = directory
        self._path = directory / f"{log}.csv"
        self._columns: list[str] = []
        self.size = size
        self.header_crc = header_crc

    def check_is_free(self) -> None:
        """Check that the file does not exist, or is the file of this log.

        Raises:
            SinkClosedError: If another file has the name.
        """
        try:
            with self._path.open("rb") as file:
                start = file.read(len(STEP_COLUMN))
        except FileNotFoundError:
            return
        if start not in (b"", STEP_COLUMN.encode()):
            raise SinkClosedError(
                f"{self._path.name} exists and is not the table of a log. Rename it, then run: pte-tracking sync RUN"
            )

    def is_intact(self) -> bool:
        """Return whether the file contains all rows and no other columns."""
        if not self.size or not self._path.exists():  # Opening it would create an empty file, which is no table.
            return False
        fd = self._open()
        try:
            header = self._read_header(fd)
            if os.fstat(fd).st_size < self.size or zlib.crc32(header) != self.header_crc:
                return False
            self._columns = next(csv.reader([header.decode()]))
            return read_at(fd, 1, self.size - 1) == b"\n"
        finally:
            os.close(fd)

    def append(self, rows: Iterable[Metrics]) -> bool:
        """Append rows to an intact file.

        Args:
            rows: Rows to append.

        Returns:
            False if the rows contain a metric without a column. Nothing is written then.

        Raises:
            OSError: If the disk is full or fails.
        """
        cells = [_find_cells(row) for row in rows]
        if not set().union(*cells) <= set(self._columns):
            return False
        data = _encode([row.get(column, "") for column in self._columns] for row in cells)
        fd = self._open()
        try:
            if write_at(fd, data, self.size) < len(data):
                raise OSError(f"{self._path}: writing {len(data)} bytes failed, the disk may be full.")
            self.size += len(data)
        finally:
            os.ftruncate(fd, self.size)  # of a partial write, and of rows whose position was not saved
            os.close(fd)
        return True

    def rebuild(self, read_rows: Callable[[], Iterable[Metrics]]) -> None:
        """Replace the file.

        Args:
            read_rows: Returns the rows. It is called twice, because the first row needs the columns of all rows.

        Raises:
            OSError: If the disk is full or fails.
        """
        columns = dict.fromkeys(_FIRST_COLUMNS)
        for row in read_rows():
            columns.update(dict.fromkeys(row.values))
        self._columns = list(columns)
        header = _encode([self._columns])
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        fd = open_owned(temporary, self._directory)
        with open(fd, "wb", buffering=_CHUNK_BYTES) as file:
            file.truncate()
            file.write(header)
            for row in read_rows():
                cells = _find_cells(row)
                file.write(_encode([[cells.get(column, "") for column in self._columns]]))
            file.flush()
            os.fsync(fd)
            size = file.tell()
        replace_file(temporary, self._path)
        sync_directory(self._path.parent)
        self.size, self.header_crc = size, zlib.crc32(header)

    def flush(self) -> None:
        """Flush the rows to disk.

        Raises:
            OSError: If the disk fails.
        """
        fd = self._open()
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _open(self) -> int:
        return open_owned(self._path, self._directory)

    def _read_header(self, fd: int) -> bytes:
        header = b""
        while b"\n" not in header and (chunk := read_at(fd, _CHUNK_BYTES, len(header))):
            header += chunk
        return header[: header.find(b"\n") + 1]


def _find_cells(row: Metrics) -> dict[str, object]:
    cells: dict[str, object] = {**row.values, STEP_COLUMN: row.step}
    if row.epoch is not None:
        cells["epoch"] = row.epoch
    if row.elapsed_time is not None:
        cells["elapsed_time"] = row.elapsed_time
    return cells


def _encode(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
