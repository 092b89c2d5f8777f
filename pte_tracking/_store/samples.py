"""Files with samples of system metrics, one per node: ``system-<node>.jsonl`` in the run directory.

A sample is one line, encoded like an event of the journal. The process that samples a node appends to its file, and the
process that delivers the run reads all files. Sequence numbers of samples are negative, because they are not in the
journal. No rewind supersedes them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from pte_tracking._platform.files import open_without_links, read_at, write_at
from pte_tracking._platform.processes import host_name
from pte_tracking._store import event_encoding
from pte_tracking._store.events import Metrics
from pte_tracking._store.files import safe_file_name
from pte_tracking._store.journal_reader import read_lines_reversed
from pte_tracking._store.layout import DELIVERY
from pte_tracking._store.lock import Lock
from pte_tracking._store.owned_files import open_owned

_logger = logging.getLogger("pte_tracking")
#: Glob of the files, which are archived with the run.
SAMPLES = "system-*.jsonl"
#: First part of the keys, which MLflow shows on its system metrics page.
PREFIX = "system/"
_NAME = re.compile(r"system-[A-Za-z0-9_.=+-]{1,120}\.jsonl")
_READ_BYTES = 1 << 18  # in one batch; a line that is longer is damaged


class Samples(NamedTuple):
    """Consecutive samples of one file.

    Attributes:
        file: Name of the file.
        events: The samples as events.
        end: Position after the last sample, in bytes.
    """

    file: str
    events: list[Metrics]
    end: int


def node_name() -> str:
    """Return the name of this node for files and keys: ``PTE_TRACKING_NODE_NAME``, or the host name."""
    return safe_file_name(os.environ.get("PTE_TRACKING_NODE_NAME") or host_name() or "node")


class SampleWriter:
    """Only writer of the samples of one node. The numbers of the samples continue those in the directory.

    Args:
        directory: The run directory.
        node: Name of the node.
        timeout: Time to wait for an earlier writer, in seconds.

    Raises:
        LockedError: If another process writes the samples of this node.
        OSError: If the file cannot be written or is a symbolic link.
    """

    def __init__(self, directory: Path, node: str, timeout: float = 0.0) -> None:
        name = f"system-{node}.jsonl"
        self._lock = Lock(directory / DELIVERY / f"{name}.lock", timeout)
        try:
            self._fd = open_owned(directory / name, directory)
            lines = read_lines_reversed(self._fd, os.fstat(self._fd).st_size)
            self._end = next((end for _, end in lines), 0)
            os.ftruncate(self._fd, self._end)  # the torn last line of a killed process
            self._count = max((_last_number(directory / file) for file in sample_files(directory)), default=0)
        except BaseException:
            self._lock.release()
            raise

    def append(self, values: Mapping[str, float]) -> None:
        """Append a sample with the current time.

        Args:
            values: Numbers by key.

        Raises:
            OSError: If the disk is full or fails. The file is unchanged.
        """
        number = self._count + 1
        data = event_encoding.encode(Metrics(-number, time.time(), number, dict(values), log=None, explicit=True))
        written = write_at(self._fd, data, self._end)
        if written < len(data):
            os.ftruncate(self._fd, self._end)
            raise OSError(f"Only {written} of {len(data)} bytes were written.")
        self._end, self._count = self._end + written, number

    def close(self) -> None:
        """Close the file and release it."""
        os.close(self._fd)
        self._lock.release()


def is_sample(event: Metrics) -> bool:
    """Whether all values are system metrics, so that the step is the number of a sample."""
    return bool(event.values) and all(key.startswith(PREFIX) for key in event.values)


def is_sample_file(name: str) -> bool:
    """Return whether a file in a run directory contains the samples of system metrics of a node.

    Args:
        name: Name of the file.
    """
    return _NAME.fullmatch(name) is not None


def sample_files(directory: Path) -> list[str]:
    """Return the names of the files with samples in a run directory, in sorted order."""
    return sorted(path.name for path in directory.glob(SAMPLES) if is_sample_file(path.name))


def read_samples(
    directory: Path, starts: Mapping[str, int], ends: Mapping[str, int] | None = None
) -> Iterator[Samples]:
    """Read samples. Damaged lines are skipped with a warning.

    Args:
        directory: The run directory.
        starts: Position in each file at which to start, in bytes. A file that is not listed, or that is shorter, is
            read from its beginning.
        ends: Position in each file at which to stop. A file that is not listed is not read. Defaults to the current
            ends of the files.

    Yields:
        Parts of the files, each with at least one complete line.
    """
    for name in sample_files(directory):
        with _opened(directory / name) as fd:
            if fd is None:
                continue
            size = os.fstat(fd).st_size
            position = start if 0 <= (start := starts.get(name, 0)) <= size else 0
            end = size if ends is None else min(ends.get(name, 0), size)
            while block := read_at(fd, min(_READ_BYTES, max(end - position, 0)), position):
                length = block.rfind(b"\n") + 1 or (len(block) if len(block) == _READ_BYTES else 0)
                if not length:  # the last line may be growing
                    break
                position += length
                yield Samples(name, _decode(block[:length], directory / name), position)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Open a file for reading. Yield None if it is a link, no regular file, or does not exist."""
    try:
        # Opening a named pipe would block otherwise.
        fd = open_without_links(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        yield None
        return
    try:
        yield fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def _last_number(path: Path) -> int:
    with _opened(path) as fd:
        if fd is not None:
            for line, _ in read_lines_reversed(fd, os.fstat(fd).st_size):
                if event := _decode_line(line):
                    return event.step
    return 0


def _decode(data: bytes, path: Path) -> list[Metrics]:
    events = []
    for line in data.splitlines():
        if event := _decode_line(line):
            events.append(event)
        else:
            _logger.warning("%s: skipping a damaged line", path)
    return events


def _decode_line(line: bytes) -> Metrics | None:
    """Return a sample as an event that belongs to no log. None if the line is damaged."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError):
        event = event_encoding.decode(line)
        if isinstance(event, Metrics) and event.step > 0 and is_sample(event):
            return Metrics(-event.step, event.time, event.step, event.values, log=None, explicit=True)
    return None
