"""Records of event files that any program wrote.

TensorBoard's reader yields the same events. It converts all values to tensors, and takes seven times as long.
"""

from __future__ import annotations

import functools
import logging
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto import event_pb2

from pte_backends.tensorboard._checksum import masked_checksum

_logger = logging.getLogger("pte_tracking")

_HEADER, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")
_BUFFER_BYTES = 1 << 20
#: Start of an event with a session log whose status is START: time, step if it is not 0, and field 7 with its length.
_RESTART = re.compile(rb"\x09.{8}(\x10[\x80-\xff]{0,9}[\x00-\x7f])?\x3a.{1,2}\x08\x01", re.DOTALL)
_MAX_START_BYTES = 32

_length_checksum = functools.lru_cache(maxsize=4096)(masked_checksum)  # Most records have one of a few lengths.


def read_events(path: Path) -> Iterator[event_pb2.Event]:
    """Read the events of a file up to the first damaged record, which is logged.

    Args:
        path: Event file.

    Yields:
        ``Event`` messages.

    Raises:
        ValueError: If the file contains no event, and is not empty.
        OSError: If the file cannot be read.
    """
    parse = event_pb2.Event.FromString
    count = 0
    try:
        for data in _read_messages(path):
            event = parse(data)
            count += 1
            yield event
    except (ValueError, DecodeError) as error:
        if not count:
            raise ValueError(f"{path}: not a TensorBoard event file: {error}") from error
        _logger.warning("%s: damaged after event %d: %s. The events before were imported.", path, count, error)


def find_restarts(path: Path) -> Iterator[tuple[int, int]]:
    """Find the events at which a program continued from an earlier step, as ``purge_step`` of a SummaryWriter does.

    Args:
        path: Event file.

    Yields:
        Index of the event in the file, and its step, from which earlier events are superseded.
    """
    if not _may_restart(path):
        return
    start = event_pb2.SessionLog.START
    try:
        for index, data in enumerate(_read_messages(path, is_checked=False)):
            if _RESTART.match(data):
                event = event_pb2.Event.FromString(data)
                if event.HasField("session_log") and event.session_log.status == start:
                    yield index, event.step
    except (ValueError, DecodeError):
        return  # reported when the events are read


def warn_of_foreign_files(directory: Path, run_id: str) -> None:
    """Log a warning if other programs wrote event files to a run directory.

    Empty files have no values: an archived run leaves one for readers that had its file open.

    Args:
        directory: Run directory.
        run_id: ID of the run, with which the names of its own files end.
    """
    foreign = sorted(
        path.name
        for path in directory.glob("events.out.tfevents.*")
        if not path.name.endswith(f".{run_id}") and path.stat().st_size
    )
    if foreign:
        _logger.warning(
            "tensorboard: another program wrote %s to the run directory. TensorBoard shows its values as part of this "
            "run, also those that a resume repeats. Give the SummaryWriter another directory, or use "
            "pte_tracking.integrations.tensorboard.SummaryWriter.",
            foreign[0] if len(foreign) == 1 else f"{foreign[0]} and {len(foreign) - 1} more",
        )


def _may_restart(path: Path) -> bool:
    """Search for a restart in the whole file, which is faster than in each record."""
    end = b""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_BUFFER_BYTES):
            if _RESTART.search(end + chunk):
                return True
            end = chunk[-_MAX_START_BYTES:]
    return False


def _read_messages(path: Path, *, is_checked: bool = True) -> Iterator[bytes]:
    size = path.stat().st_size
    with open(path, "rb", buffering=_BUFFER_BYTES) as file:
        read, position = file.read, 0
        while header := read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise ValueError(f"truncated at byte {position}")
            length, checksum = _HEADER.unpack(header)
            if is_checked and _length_checksum(header[:8]) != checksum:
                raise ValueError(f"wrong checksum of the length at byte {position}")
            position += _HEADER.size + length + _CHECKSUM.size
            if position > size:
                raise ValueError(f"truncated at byte {size}")
            data = read(length)
            footer = read(_CHECKSUM.size)
            if len(footer) < _CHECKSUM.size:
                raise ValueError(f"truncated at byte {size}")
            if is_checked and masked_checksum(data) != _CHECKSUM.unpack(footer)[0]:
                raise ValueError(f"wrong checksum of the data before byte {position}")
            yield data
